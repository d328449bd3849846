// The slots in use over time, against the limit; and the overview of the whole build.

const AXIS = 20; // pixels at the top of the chart, for the times

/** The largest count there is to show. */
function ceiling(recording) {
  const most = (counts) => counts.reduce((one, other) => Math.max(one, other), 0);
  return Math.max(1, most(recording.limits.counts), most(recording.total.counts));
}

/** Draws the step area: the mean of each pixel strong, the most in it weak; several leases lie on each other. */
function drawSlots(canvas, recording, view, serial, palette) {
  const surface = prepared(canvas);
  if (!surface) return;
  const { pen, width, height } = surface;
  const top = ceiling(recording);
  const y = (count) => height - 1 - (count / top) * (height - AXIS - 14);
  drawGrid(surface, view, palette.grid, AXIS);
  drawTimes(surface, view, palette);
  drawCounts(surface, top, y, palette);
  fillColumns(pen, columnsOf(recording.total, view, Math.ceil(width)).most, null, y, palette["use-peak"]);
  drawLeases(surface, recording, view, y, palette);
  drawLimit(surface, recording.limits, view, y, palette);
  drawNumbers(surface, top, y, palette);
  pen.fillStyle = palette.serial;
  for (const { from, to } of serial) {
    const left = view.x(from, width);
    pen.fillRect(left, height - 5, Math.max(2, view.x(to, width) - left), 5);
  }
}

function drawTimes({ pen, width }, view, palette) {
  pen.font = `12px ${FONT}`;
  pen.fillStyle = palette.quiet;
  pen.textBaseline = "top";
  for (const [time, label] of ticks(view, width)) {
    const x = view.x(time, width);
    const wide = pen.measureText(label).width;
    pen.fillText(label, Math.min(Math.max(0, x - wide / 2), width - wide), 2);
  }
}

function drawCounts({ pen, width }, top, y, palette) {
  for (let count = stepOf(top); count < top; count += stepOf(top)) {
    pen.fillStyle = palette.grid;
    pen.fillRect(0, Math.round(y(count)), width, 1);
  }
}

/** The numbers of the counts, readable on whatever is below them. */
function drawNumbers({ pen }, top, y, palette) {
  pen.font = `12px ${FONT}`;
  pen.textBaseline = "middle";
  pen.lineWidth = 4;
  pen.lineJoin = "round";
  pen.strokeStyle = palette.card;
  pen.fillStyle = palette.text;
  for (let count = stepOf(top); count <= top; count += stepOf(top)) {
    pen.strokeText(count, 4, y(count));
    pen.fillText(count, 4, y(count));
  }
}

/** The distance between the counts that are named: so that there are about five. */
function stepOf(top) {
  return [1, 2, 5, 10, 20, 25, 50, 100, 250, 500, 1000, 2500, 5000].find((count) => top / count <= 5) ?? 10000;
}

function drawLeases({ pen, width }, recording, view, y, palette) {
  let base = null;
  recording.leases.forEach((lease, index) => {
    const { mean } = columnsOf(lease, view, Math.ceil(width));
    const above = base ? mean.map((value, column) => value + base[column]) : mean;
    fillColumns(pen, above, base, y, leaseColour(recording, index, palette));
    base = above;
  });
}

function leaseColour(recording, index, palette) {
  return palette[`lease-${index % 5}`];
}

function drawLimit({ pen, width }, limits, view, y, palette) {
  if (!limits.counts.length) return;
  pen.strokeStyle = palette.limit;
  pen.lineWidth = 1.5;
  pen.setLineDash([6, 4]);
  pen.beginPath();
  let level = y(countAt(limits, view.from));
  pen.moveTo(0, level);
  for (let index = countUpTo(limits.times, view.from); index < limits.times.length; index++) {
    const x = view.x(limits.times[index], width);
    if (x > width) break;
    pen.lineTo(x, level);
    level = y(limits.counts[index]);
    pen.lineTo(x, level);
  }
  pen.lineTo(width, level);
  pen.stroke();
  pen.setLineDash([]);
  pen.font = `600 12px ${FONT}`;
  pen.fillStyle = palette.limit;
  pen.textBaseline = "bottom";
  const label = `limit ${countAt(limits, Math.min(view.to, limits.end * (1 - 1e-9)))}`;
  pen.fillText(label, width - pen.measureText(label).width - 4, level - 3);
}

/** The whole build, small, and the frame around what is shown. */
function drawOverview(overview, recording, view, palette) {
  const surface = prepared(overview.querySelector("canvas"));
  if (!surface) return;
  const whole = new View(recording.seconds, () => {});
  const top = ceiling(recording);
  const { mean } = columnsOf(recording.total, whole, Math.ceil(surface.width));
  fillColumns(surface.pen, mean, null, (count) => surface.height - (count / top) * (surface.height - 4), palette.use);
  placeWindow(overview, view);
}

function placeWindow(overview, view) {
  const frame = overview.querySelector(".window");
  frame.style.left = `${(view.from / view.seconds) * 100}%`;
  frame.style.width = `max(6px, ${(view.span / view.seconds) * 100}%)`;
}
