// Draw strokes on a transparent canvas, and send the drawing as a PNG several times a second. Each PNG has an index,
// which the page returns with its prediction; the next PNG is sent after that. An unanswered PNG is sent again, because
// gradio drops events while it starts. The timeout doubles each time, so that a slow machine is not overloaded.
const INTERVAL = 60; // milliseconds
const canvas = element.querySelector("canvas");
const color = element.querySelector("input");
const context = canvas.getContext("2d");
let strokes = [], pointer = null, changed = false, index = 0, sentAt = 0, timeout = 0;

element.querySelector("label").hidden = !props.colored;

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = canvas.width / 12; // the stroke width of MNIST, for a digit that fills the canvas
  for (const stroke of strokes) {
    context.strokeStyle = stroke.color;
    context.beginPath();
    context.moveTo(...stroke.points[0]);
    for (const point of stroke.points) context.lineTo(...point);
    context.stroke();
  }
  changed = true;
}

setInterval(() => {
  const answered = Number(document.querySelector("#note [data-drawn]")?.dataset.drawn ?? 0) >= index;
  const overdue = performance.now() - sentAt > timeout && element.offsetParent !== null;
  if (!(answered ? changed : overdue)) return;
  timeout = answered ? 1500 : 2 * timeout;
  props.value = `${++index} ${strokes.length ? canvas.toDataURL("image/png") : ""}`;
  changed = false;
  sentAt = performance.now();
  trigger("input");
}, INTERVAL);

function position(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

canvas.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  strokes.push({ color: props.colored ? color.value : "#000000", points: [position(event)] });
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  for (const move of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).points.push(position(move));
  draw();
});
for (const name of ["pointerup", "pointercancel"])
  canvas.addEventListener(name, (event) => { if (event.pointerId === pointer) pointer = null; });
element.querySelector('[data-do="undo"]').addEventListener("click", () => { strokes.pop(); draw(); });
element.querySelector('[data-do="clear"]').addEventListener("click", () => { strokes = []; draw(); });
