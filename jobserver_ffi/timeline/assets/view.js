// The stretch of time that is shown, which all charts share, and how times and sizes are written.

const CLOSEST = 1e-3; // seconds: the shortest stretch that is shown

/** What is shown of `seconds`; `changed` is called after each change. */
class View {
  constructor(seconds, changed) {
    this.seconds = seconds;
    this.from = 0;
    this.to = seconds;
    this.changed = changed;
  }

  get span() {
    return this.to - this.from;
  }

  /** Shows from one time to another, as far as the build reaches. */
  show(from, to) {
    const span = Math.min(this.seconds, Math.max(to - from, Math.min(CLOSEST, this.seconds)));
    this.from = Math.min(Math.max(0, from), this.seconds - span);
    this.to = this.from + span;
    this.changed();
  }

  /** Shows `factor` times as much time; `around` stays where it is. */
  zoom(factor, around = this.from + this.span / 2) {
    this.show(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  pan(seconds) {
    const from = Math.min(Math.max(0, this.from + seconds), this.seconds - this.span);
    this.show(from, from + this.span);
  }

  /** Shows a stretch with some of what is around it. */
  showAround(from, to) {
    const margin = Math.max((to - from) * 0.15, CLOSEST);
    this.show(from - margin, to + margin);
  }

  x(time, width) {
    return ((time - this.from) / this.span) * width;
  }

  time(x, width) {
    return this.from + (x / width) * this.span;
  }
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

/** Round times for the axis, about one for each 90 pixels. */
function ticks(view, width) {
  const least = (view.span / width) * 90;
  let step = STEPS.find((seconds) => seconds >= least) ?? Math.ceil(least / 86400) * 86400;
  if (least < 0.5) {
    const power = 10 ** Math.floor(Math.log10(least));
    step = power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  }
  const found = [];
  for (let number = Math.ceil(view.from / step); number * step <= view.to; number++) {
    found.push([number * step, clock(number * step, step)]);
  }
  return found;
}

/** A time as a point on the axis, with as many digits as the step between points has. */
function clock(time, step) {
  if (step < 0.001) return `${(time * 1000).toFixed(1)} ms`;
  const digits = step >= 1 ? 0 : Math.min(4, Math.ceil(-Math.log10(step) - 1e-9));
  if (time < 60) return `${time.toFixed(digits)} s`;
  const seconds = (time % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const minutes = Math.floor(time / 60);
  if (minutes < 60) return `${minutes}:${seconds}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${seconds}`;
}

/** A length of time for people, as summary.py writes it. */
function duration(seconds) {
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}

/** Bytes for people. */
function size(bytes) {
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

function percent(share) {
  return `${(share * 100).toFixed(0)} %`;
}
