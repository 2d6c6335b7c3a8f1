// Strokes on transparent paper; while one is drawn, what is there is sent on as a PNG, a few times a second. Each has a
// number, which the page shows with its answer: the next waits for that, and what is not answered is sent again, for
// gradio loses what it is told while it is starting; later and later, for a slow machine is not to be given more to do.
const PAUSE = 60; // milliseconds
const paper = element.querySelector("canvas");
const color = element.querySelector("input");
const ink = paper.getContext("2d");
let strokes = [], pointer = null, changed = false, number = 0, sent = 0, patience = 0;

element.querySelector("label").hidden = !props.colored;

function draw() {
  ink.clearRect(0, 0, paper.width, paper.height);
  ink.lineCap = ink.lineJoin = "round";
  ink.lineWidth = paper.width / 12; // of a digit that fills the paper, strokes as thick as MNIST's
  for (const stroke of strokes) {
    ink.strokeStyle = stroke.color;
    ink.beginPath();
    ink.moveTo(...stroke.points[0]);
    for (const point of stroke.points) ink.lineTo(...point);
    ink.stroke();
  }
  changed = true;
}

setInterval(() => {
  const heard = Number(document.querySelector("#note [data-drawn]")?.dataset.drawn ?? 0) >= number;
  const late = performance.now() - sent > patience && element.offsetParent !== null;
  if (!(heard ? changed : late)) return;
  patience = heard ? 1500 : 2 * patience;
  props.value = `${++number} ${strokes.length ? paper.toDataURL("image/png") : ""}`;
  changed = false;
  sent = performance.now();
  trigger("input");
}, PAUSE);

function place(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

paper.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  strokes.push({ color: props.colored ? color.value : "#000000", points: [place(event)] });
  draw();
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).points.push(place(each));
  draw();
});
for (const name of ["pointerup", "pointercancel"])
  paper.addEventListener(name, (event) => { if (event.pointerId === pointer) pointer = null; });
element.querySelector('[data-do="undo"]').addEventListener("click", () => { strokes.pop(); draw(); });
element.querySelector('[data-do="clear"]').addEventListener("click", () => { strokes = []; draw(); });
