window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function themed(text) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const figure = JSON.parse(text.replaceAll("@INK@", colour("--ink"))
    .replaceAll("@PAPER@", colour("--paper")));
  const layout = figure.layout;
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
  layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13,
    color: colour("--ink") };
  layout.hoverlabel = { bgcolor: colour("--panel"), bordercolor: colour("--line"), align: "left",
    font: { color: colour("--ink"), size: 13 } };
  const lines = { gridcolor: colour("--grid"), linecolor: colour("--line"),
    zerolinecolor: colour("--line"), tickcolor: colour("--line") };
  for (const axes of [layout, layout.scene ?? {}]) {
    for (const key of Object.keys(axes)) {
      if (/^[xyz]axis\d*$/.test(key)) Object.assign(axes[key], lines);
    }
  }
  return figure;
}
// A point with a page of its own opens it.
function linked(holder) {
  const page = (event) => event.points[0].data.meta?.pages?.[event.points[0].pointNumber];
  holder.removeAllListeners("plotly_click");
  holder.on("plotly_click", (event) => { if (page(event)) window.location.href = page(event); });
}
function draw() {
  const holders = document.querySelectorAll("[data-figure]");
  const drawn = Array.from(holders, (holder) => {
    const figure = themed(document.getElementById(holder.dataset.figure).textContent);
    return Plotly.react(holder, figure.data, figure.layout,
      { responsive: true, displayModeBar: false });
  });
  Promise.all(drawn).then(() => {
    holders.forEach(linked); document.body.dataset.drawn = holders.length; },
    (error) => { document.body.dataset.error = String(error); });
}
dark.addEventListener("change", draw);
draw();
