// The recording as the page carries it, unpacked: the other half of columns.py.

const CHANGE = 1e-4; // seconds; the units are those of columns.py
const MOMENT = 1e-3;
const SHARE = 1e-3;
const MEMORY = 1024;

/** Reads the recording out of the page. Rejects where the browser cannot inflate. */
async function readRecording() {
  const text = atob(document.getElementById("recording").textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return unpack(await new Response(inflated).json());
}

/** All numbers as Float64Arrays in seconds, slots, shares and bytes; times ascend. */
function unpack(raw) {
  const seconds = Math.max(raw.seconds, MOMENT); // so that nothing is divided by 0
  const leases = raw.leases.map((lease) => ({ ...lease, ...steps(lease.changes, lease.ended) }));
  return {
    seconds,
    cpus: raw.cpus,
    late: raw.late, // seconds: how much too late a process may be seen to have ended
    limits: fromTheStart(steps(raw.limits, seconds)),
    leases,
    total: leases.length === 1 ? leases[0] : sumOfSteps(leases),
    programs: raw.programs,
    coloured: raw.coloured, // how many of them have colours of their own
    commands: raw.commands,
    processes: unpackProcesses(raw.processes),
    machine: unpackMachine(raw.machine),
  };
}

function unpackProcesses(raw) {
  const start = sums(raw.start, 1);
  const pid = sums(raw.pid, 1);
  return {
    count: start.length,
    start: scaled(start, MOMENT),
    end: scaled(start.map((value, index) => value + raw.length[index]), MOMENT), // equal to a start if it was equal
    pid,
    parent: pid.map((value, index) => value - raw.parent[index]),
    lease: raw.lease,
    program: raw.program,
    command: sums(raw.command, 1),
    cpu: scaled(raw.cpu, MOMENT),
    memory: scaled(raw.memory, MEMORY),
  };
}

function unpackMachine(raw) {
  const times = sums(raw.times, MOMENT);
  const whole = (values) => (values.length === times.length ? values : new Float64Array()); // else not known at all
  const pressure = Object.entries(raw.pressure).map(([name, values]) => [name, whole(scaled(values, SHARE))]);
  return {
    times,
    cpu: whole(scaled(raw.cpu, SHARE)),
    load: whole(scaled(raw.load, SHARE)),
    memory: whole(sums(raw.memory, MEMORY)),
    memoryTotal: raw.memoryTotal,
    pressure: new Map(pressure.filter(([, values]) => values.length)),
  };
}

function scaled(values, unit) {
  return Float64Array.from(values, (value) => value * unit);
}

/** Values from their differences. The sums are of whole numbers, so no error adds up. */
function sums(differences, unit) {
  const values = new Float64Array(differences.length);
  let sum = 0;
  for (let index = 0; index < values.length; index++) {
    sum += differences[index];
    values[index] = sum * unit;
  }
  return values;
}

/** A count that holds from each time to the next; it is 0 before the first and from `end` on. */
function steps(changes, end) {
  const times = sums(changes.times, CHANGE);
  return { times, counts: sums(changes.counts, 1), end };
}

/** The same count, known from time 0 on. */
function fromTheStart(count) {
  if (count.times.length) count.times[0] = 0;
  return count;
}

/** The sum of several counts, as one. */
function sumOfSteps(parts) {
  const changes = [];
  for (const { times, counts, end } of parts) {
    let before = 0;
    for (let index = 0; index < times.length; index++) {
      changes.push([times[index], counts[index] - before]);
      before = counts[index];
    }
    changes.push([end, -before]);
  }
  changes.sort((one, other) => one[0] - other[0]);
  const counts = new Float64Array(changes.length);
  let sum = 0;
  changes.forEach(([, change], index) => (counts[index] = sum += change));
  return { times: Float64Array.from(changes, ([time]) => time), counts, end: Infinity };
}

/** How many of the ascending values are at or below `limit`. */
function countUpTo(values, limit) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The class of the colour of a program. */
function programColour({ coloured }, program) {
  return `program-${program < coloured ? program : 8}`;
}

/** The count at a time. */
function countAt({ times, counts, end }, time) {
  const index = countUpTo(times, time) - 1;
  return index < 0 || time >= end ? 0 : counts[index];
}
