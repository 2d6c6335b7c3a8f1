"""Code that several experiments share: studies, figures, audio, descriptors, synthetic data and style transfer."""
