// The processes in lanes: each below the one that started it, and what runs at the same time beside each other.

const ROW = 19; // pixels, of which the last 2 are a gap
const LEASE = 52; // the head of a lease, where there are several

/** Where each process and each lease is drawn: rows of indices in the order of their starts, and the y of each row. */
class Lanes {
  constructor(recording) {
    this.recording = recording;
    const { processes, leases } = recording;
    const { row, used } = placed(processes, Math.max(1, leases.length), recording.late);
    this.rows = [];
    this.tops = [];
    this.leases = [];
    this.height = 0;
    const firsts = used.map((count, lease) => this.addLease(lease, count));
    this.rowOf = row.map((own, process) => firsts[leaseOf(processes, process, used.length)] + own);
    for (let process = 0; process < processes.count; process++) this.rows[this.rowOf[process]].push(process);
    this.fades = null; // for each process, whether a search hides it
  }

  /** Makes room for a lease and its rows; returns the number of the first of them. */
  addLease(lease, count) {
    if (this.recording.leases.length > 1) {
      if (this.height) this.height += 8;
      this.leases.push({ lease, top: this.height });
      this.height += LEASE;
    }
    const first = this.rows.length;
    for (let row = 0; row < count; row++) {
      this.rows.push([]);
      this.tops.push(this.height);
      this.height += ROW;
    }
    return first;
  }

  /** The row at a height, or null between rows. */
  rowAt(y) {
    const row = countUpTo(this.tops, y) - 1;
    return row >= 0 && y < this.tops[row] + ROW ? row : null;
  }

  /** The process of a row at a time, or within `near` seconds of it; null if there is none. */
  processAt(row, time, near) {
    const { start, end } = this.recording.processes;
    const members = this.rows[row];
    let low = 0;
    let high = members.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (start[members[middle]] <= time) low = middle + 1;
      else high = middle;
    }
    const near_by = [members[low - 1], members[low]].filter((process) => process !== undefined);
    const away = (process) => Math.max(start[process] - time, time - end[process], 0);
    near_by.sort((one, other) => away(one) - away(other));
    return near_by.length && away(near_by[0]) <= near ? near_by[0] : null;
  }

  /** The lease whose head is at a height, or null. */
  leaseAt(y) {
    return this.leases.find(({ top }) => y >= top && y < top + LEASE)?.lease ?? null;
  }

  /** Draws what of the rows lies from `scroll` on within the canvas. */
  draw(canvas, scroll, view, chosen, palette) {
    const surface = prepared(canvas);
    if (!surface) return;
    const { pen, height } = surface;
    drawGrid(surface, view, palette.grid);
    pen.translate(0, -scroll);
    for (const head of this.leases) {
      if (head.top + LEASE > scroll && head.top < scroll + height) this.drawHead(surface, head, view, palette);
    }
    pen.font = `11.5px ${MONO}`;
    pen.textBaseline = "middle";
    const letter = pen.measureText("m").width;
    for (let row = 0; row < this.rows.length; row++) {
      if (this.tops[row] + ROW > scroll && this.tops[row] < scroll + height)
        this.drawRow(surface, row, view, letter, palette);
    }
    if (chosen !== null) this.outline(surface, chosen, view, palette);
  }

  drawRow({ pen, width }, row, view, letter, palette) {
    const { start, end, program } = this.recording.processes;
    const y = this.tops[row];
    const members = this.rows[row];
    let drawn = -1; // up to where this row is drawn: what ends in the same pixel adds nothing
    for (let index = 0; index < members.length; index++) {
      const process = members[index];
      if (end[process] < view.from) continue;
      if (start[process] > view.to) break;
      const left = Math.max(view.x(start[process], width), -2);
      const next = index + 1 < members.length ? start[members[index + 1]] : Infinity; // may cover the end of this one
      const right = Math.min(Math.max(view.x(Math.min(end[process], next), width), left + 1.5), width + 2);
      if (right < drawn + 0.5) continue;
      drawn = right;
      const faded = this.fades?.[process];
      pen.globalAlpha = faded ? 0.16 : 1;
      pen.fillStyle = palette[programColour(this.recording, program[process])];
      const wide = Math.max(right - left - (right - left > 4 ? 1 : 0), 1);
      if (wide > 5) {
        pen.beginPath();
        pen.roundRect(left, y, wide, ROW - 2, 3);
        pen.fill();
      } else pen.fillRect(left, y, wide, ROW - 2);
      if (wide > 26 && !faded) {
        pen.fillStyle = palette["program-text"];
        const label = this.label(process, Math.floor((wide - Math.max(left, 0) + left - 10) / letter));
        pen.fillText(label, Math.max(left, 0) + 5, y + ROW / 2 - 0.5);
      }
    }
    pen.globalAlpha = 1;
  }

  /** What stands on a bar with room for so many letters: the program, and what follows it in the command. */
  label(process, letters) {
    const { programs, commands, processes } = this.recording;
    const subject = subjectOf(commands[processes.command[process]]);
    const label = programs[processes.program[process]] + (subject && ` ${subject.slice(0, letters)}`);
    return label.length <= letters ? label : letters < 2 ? "" : `${label.slice(0, letters - 1)}…`;
  }

  drawHead({ pen, width }, { lease, top }, view, palette) {
    const own = this.recording.leases[lease];
    const most = Math.max(own.peak, 1);
    const base = top + LEASE - 4;
    pen.fillStyle = palette.sunken;
    pen.fillRect(0, top, width, LEASE - 4);
    const { mean } = columnsOf(own, view, Math.ceil(width));
    const colour = leaseColour(this.recording, lease, palette);
    fillColumns(pen, mean, null, (count) => base - (count / most) * (LEASE - 26), colour);
    pen.font = `600 12px ${FONT}`;
    pen.textBaseline = "top";
    const lost = own.lost ? ` · ${own.lost} lost` : "";
    const label = `${own.name} · at most ${own.peak} · ${own.slotSeconds.toFixed(1)} slot-seconds${lost}`;
    pen.fillStyle = palette.sunken;
    pen.globalAlpha = 0.85;
    pen.fillRect(0, top, pen.measureText(label).width + 30, 19);
    pen.globalAlpha = 1;
    pen.fillStyle = colour;
    pen.fillRect(5, top + 5, 10, 10);
    pen.fillStyle = own.lost ? palette.warn : palette.text;
    pen.fillText(label, 21, top + 4);
  }

  outline({ pen, width }, process, view, palette) {
    const { start, end } = this.recording.processes;
    const left = Math.max(view.x(start[process], width), -4);
    const right = Math.min(Math.max(view.x(end[process], width), left + 3), width + 4);
    pen.strokeStyle = palette.text;
    pen.lineWidth = 2;
    pen.strokeRect(left, this.tops[this.rowOf[process]] - 0.5, right - left, ROW - 1);
  }
}

const SOURCE = /(?:^|\s)(?:[^\s-]\S*\/)?([^\s/-][^\s/]*\.(?:[cCmsSdf]|cc|cpp|cxx|c\+\+|mm|rs|go|f90|pyx?|java|tex))(?=\s|$)/;

const OUTPUT = /\s-o\s+(?:\S*\/)?(\S+)/;

/** What a command works on, as far as one can tell: a source file, its output, or what follows program and options. */
function subjectOf(command) {
  const named = SOURCE.exec(command) ?? OUTPUT.exec(command);
  return named?.[1] ?? /^\S+(?:\s+-\S*)*\s*'?(.*)/s.exec(command)?.[1] ?? "";
}

/** The lease of a process; what has none stands with the first. */
function leaseOf(processes, process, count) {
  const lease = processes.lease[process];
  return lease >= 0 && lease < count ? lease : 0;
}

/**
 * The row of each process within its lease, and how many rows each lease has. The processes that one started take the
 * rows below it, as a block; blocks stand on the first rows that are free for their whole time.
 */
function placed(processes, leases, late) {
  const { start, end, count } = processes;
  const parents = parentsOf(processes);
  const children = Array.from({ length: count }, () => null);
  const roots = Array.from({ length: leases }, () => []);
  for (let process = 0; process < count; process++) {
    const parent = parents[process];
    if (parent < 0) roots[leaseOf(processes, process, leases)].push(process);
    else (children[parent] ??= []).push(process);
  }
  const height = new Int32Array(count).fill(1);
  const until = Float64Array.from(end); // of a process and all below it
  const offset = new Int32Array(count); // from the parent's row
  const order = roots.flat();
  for (let index = 0; index < order.length; index++) for (const child of children[order[index]] ?? []) order.push(child);
  for (const process of order.toReversed()) {
    if (!children[process]) continue;
    height[process] += stacked(children[process], start, until, height, offset, late);
    for (const child of children[process]) {
      offset[child] += 1;
      until[process] = Math.max(until[process], until[child]);
    }
  }
  const used = roots.map((members) => stacked(members, start, until, height, offset, late));
  const row = Int32Array.from(offset);
  for (const process of order) if (parents[process] >= 0) row[process] += row[parents[process]];
  return { row: [...row], used };
}

/**
 * Sets the offsets of blocks that come in the order of their starts; returns how many rows they take. A block may cover
 * the end of the one before it by `late` at most, and by half: that one has probably ended by then.
 */
function stacked(members, start, until, height, offset, late) {
  const free = []; // from when on each row is
  for (const process of members) {
    let first = 0;
    for (let row = 0; row < first + height[process]; row++) {
      if (row < free.length && free[row] > start[process]) first = row + 1;
    }
    offset[process] = first;
    const length = until[process] - start[process];
    const end = until[process] - Math.min(late, length / 2);
    for (let row = first; row < first + height[process]; row++) free[row] = end;
  }
  return free.length;
}

/** The index of the process that started each, or -1. Process numbers come back: it is the last one that began before. */
function parentsOf({ pid, parent, lease, count }) {
  const last = new Map(); // the process that each number means by now
  const parents = new Int32Array(count);
  for (let process = 0; process < count; process++) {
    const found = last.get(parent[process]);
    parents[process] = found === undefined || lease[found] !== lease[process] ? -1 : found;
    last.set(pid[process], process);
  }
  return parents;
}
