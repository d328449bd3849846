// What the machine did meanwhile: CPU, memory and pressure, below the slots on the same axis.

/** Draws samples as lines over an area; `lines` are pairs of values and the name of a colour, `most` is the top. */
function drawSamples(canvas, times, lines, most, view, palette) {
  const surface = prepared(canvas);
  if (!surface) return;
  const { pen, width, height } = surface;
  const y = (value) => height - 1 - Math.min(1, value / most) * (height - 4);
  pen.fillStyle = palette.sunken;
  pen.fillRect(0, 0, width, height);
  drawGrid(surface, view, palette.grid);
  for (const [values, colour] of lines) {
    const points = pointsOf(times, values, view, width);
    if (!points.length) continue;
    pen.beginPath();
    for (const [x, value] of points) pen.lineTo(x, y(value));
    pen.strokeStyle = palette[colour];
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.lineTo(points.at(-1)[0], height);
    pen.lineTo(points[0][0], height);
    pen.globalAlpha = lines.length > 1 ? 0.1 : 0.22;
    pen.fillStyle = palette[colour];
    pen.fill();
    pen.globalAlpha = 1;
  }
}

/** The samples in view and one on either side; several in one pixel are one, their mean. */
function pointsOf(times, values, view, width) {
  const points = view.from < times[0] ? [[view.x(0, width), values[0]]] : [];
  const last = Math.min(times.length - 1, countUpTo(times, view.to));
  let index = Math.max(0, countUpTo(times, view.from) - 1);
  while (index <= last) {
    const x = view.x(times[index], width);
    let sum = 0;
    let count = 0;
    do {
      sum += values[index++];
      count++;
    } while (index <= last && view.x(times[index], width) < Math.floor(x) + 1);
    points.push([x, sum / count]);
  }
  return points;
}

/** The sample that a time belongs to: the next one, since each tells of the time since the one before. */
function sampleAt({ times }, values, time) {
  const before = countUpTo(times, time);
  return values[Math.min(values.length - 1, before && times[before - 1] === time ? before - 1 : before)];
}

/** The tracks that have something to show: what draws each, and what is said of a time. */
function machineTracks({ machine, cpus }) {
  const { times, cpu, load, memory, memoryTotal, pressure } = machine;
  const highest = (arrays) => Math.max(...arrays.map((values) => values.reduce((one, two) => Math.max(one, two), 0)));
  const tracks = [];
  if (cpu.length) {
    tracks.push({
      id: "cpu",
      name: "CPU",
      lines: [[cpu, "use"]],
      most: 1,
      says: (time) =>
        `${percent(sampleAt(machine, cpu, time))} of ${cpus}` +
        (load.length ? `, load ${sampleAt(machine, load, time).toFixed(1)}` : ""),
    });
  }
  if (memory.length) {
    tracks.push({
      id: "memory",
      name: "Memory",
      lines: [[memory, "memory"]],
      most: memoryTotal || highest([memory]) || 1,
      says: (time) => `${size(sampleAt(machine, memory, time))}${memoryTotal ? ` of ${size(memoryTotal)}` : ""}`,
    });
  }
  if (pressure.size) {
    const colour = { cpu: "use", memory: "memory", io: "io" };
    const lines = [...pressure].map(([name, values]) => [values, colour[name] ?? "quiet", name]);
    tracks.push({
      id: "pressure",
      name: "Pressure",
      lines,
      most: Math.min(1, Math.max(0.1, highest(lines.map(([values]) => values)) * 1.1)),
      says: (time) => lines.map(([values, , name]) => `${name} ${percent(sampleAt(machine, values, time))}`).join(", "),
    });
  }
  return tracks.map((track) => ({
    ...track,
    draw: (canvas, view, palette) => drawSamples(canvas, times, track.lines, track.most, view, palette),
  }));
}
