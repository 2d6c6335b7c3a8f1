"""Shared code of the experiments: options and reports, figures, audio, descriptors, synthetic data, style transfer."""
