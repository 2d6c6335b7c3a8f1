// Strokes on transparent paper; while one is drawn, what is there is sent on as a PNG, a few times a second.
const PAUSE = 60; // milliseconds between two
const paper = element.querySelector("canvas");
const color = element.querySelector("input");
const ink = paper.getContext("2d");
let strokes = [], pointer = null, waiting = null;

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
  waiting ??= setTimeout(tell, PAUSE);
}

function tell() {
  waiting = window.canBeTold ? null : setTimeout(tell, PAUSE); // the page may not have opened its ears yet
  if (waiting !== null) return;
  props.value = strokes.length ? paper.toDataURL("image/png") : "";
  trigger("input");
}

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
  paper.addEventListener(name, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    draw();
  });
element.querySelector('[data-do="undo"]').addEventListener("click", () => { strokes.pop(); draw(); });
element.querySelector('[data-do="clear"]').addEventListener("click", () => { strokes = []; draw(); });
