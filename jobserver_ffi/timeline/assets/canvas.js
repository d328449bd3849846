// What all charts need to draw: a canvas as fine as the screen, the colours of the style sheet, the grid of the axis.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';

/** The colour of each name as the current theme has it. */
function colours(names) {
  const probe = document.body.appendChild(document.createElement("i"));
  const found = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

/** Makes the canvas as large as it is shown, empty, and returns what draws on it, in CSS pixels; null if it is hidden. */
function prepared(canvas) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return null;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return { pen, width, height };
}

/** The vertical lines of the time axis. */
function drawGrid({ pen, width, height }, view, colour, top = 0) {
  pen.fillStyle = colour;
  for (const [time] of ticks(view, width)) pen.fillRect(Math.round(view.x(time, width)), top, 1, height - top);
}

/**
 * A count seen through columns one pixel wide: the mean over the time of each and the most in it. So 100,000 changes
 * cost as many steps, and what is drawn is the count itself where a column has one value.
 */
function columnsOf({ times, counts, end }, view, width) {
  const mean = new Float64Array(width);
  const most = new Float64Array(width);
  let index = countUpTo(times, view.from) - 1;
  for (let column = 0; column < width; column++) {
    const from = view.time(column, width);
    const to = view.time(column + 1, width);
    let time = from;
    while (time < to) {
      const next = index + 1 < times.length ? Math.min(times[index + 1], to) : to;
      const count = index < 0 ? 0 : counts[index];
      const until = Math.min(next, end);
      if (until > time) {
        mean[column] += (count * (until - time)) / (to - from);
        most[column] = Math.max(most[column], count);
      }
      time = next;
      if (index + 1 < times.length && times[index + 1] <= time) {
        index++;
        if (times[index] < end) most[column] = Math.max(most[column], time < to ? counts[index] : 0);
      }
    }
  }
  return { mean, most };
}

/** Fills the area below one value for each column, above `base` if there is one. */
function fillColumns(pen, values, base, y, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.moveTo(0, y(base ? base[0] : 0));
  for (let column = 0; column < values.length; column++) {
    pen.lineTo(column, y(values[column]));
    pen.lineTo(column + 1, y(values[column]));
  }
  for (let column = values.length - 1; column >= 0; column--) {
    pen.lineTo(column + 1, y(base ? base[column] : 0));
    pen.lineTo(column, y(base ? base[column] : 0));
  }
  pen.fill();
}
