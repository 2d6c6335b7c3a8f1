// Decompress plotly from this page, and draw the charts in the colors of the current theme.
(async () => {
  const compressed = document.getElementById("plotly").textContent.trim();
  const bytes = Uint8Array.from(atob(compressed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const line = style.getPropertyValue("--line").trim();
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
    return { font: { color: style.getPropertyValue("--text").trim(), family: "system-ui, sans-serif" }, axis };
  };
  const draw = (chart) => {
    const { data, layout } = JSON.parse(chart.querySelector("script").textContent);
    const { font, axis } = theme();
    const themed = { ...layout, font, xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis } };
    const container = chart.querySelector("div");
    return Plotly.react(container, data, themed, { responsive: true, displayModeBar: false });
  };
  const charts = [...document.querySelectorAll(".chart")];
  await Promise.all(charts.map(draw));
  dark.addEventListener("change", () => charts.forEach(draw));
  document.documentElement.dataset.drawn = charts.length;
})();
