// The networks of this page and what runs them: an agent that acts, and its world model that dreams.
// Each network is { inputs, outputs, run }: sizes by name, and a function from arrays to arrays.

const { exp, log, log1p, expm1, sqrt, pow, tanh, sin, cos, floor, ceil, trunc, abs: fabs } = Math;
const at_least = (x, low) => (x < low ? low : x);
const at_most = (x, high) => (x > high ? high : x);
const square = (x) => x * x;
const sigmoid = (x) => 1 / (1 + exp(-x));
const sign = (x) => (x > 0) - (x < 0);

/** out [batches, rows, columns] += left [batches, rows, inner] right [batches, inner, columns] */
function product(out, left, right, batches, rows, inner, columns) {
  for (let batch = 0; batch < batches; batch++) {
    for (let row = 0; row < rows; row++) {
      const at = (batch * rows + row) * columns;
      for (let k = 0; k < inner; k++) {
        const factor = left[(batch * rows + row) * inner + k];
        const w = (batch * inner + k) * columns;
        for (let n = 0; n < columns; n++) out[at + n] += factor * right[w + n];
      }
    }
  }
}

/** Numbers from base64 of little-endian float32. */
function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

const NETWORKS = (() => {
$networks
})();

const zeros = (sizes) => Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, new Float32Array(size)]));

/** The outputs of a network by name, as new arrays. */
function computed(network, inputs) {
  const outputs = zeros(network.outputs);
  network.run(inputs, outputs);
  return outputs;
}

/** The outputs that are called "next_..." as inputs that are called `prefix`. */
function following(outputs, prefix) {
  const names = Object.keys(outputs).filter((name) => name.startsWith("next_"));
  return Object.fromEntries(names.map((name) => [prefix + name.slice(5), outputs[name]]));
}

/** Acts, and remembers what it saw in its episode. */
class Agent {
  constructor() {
    this.reset();
  }

  /** Before the first step of an episode. */
  reset() {
    this.inputs = zeros(NETWORKS.act.inputs);
    this.inputs.is_first[0] = 1;
  }

  /** The action for an observation: an array, or arrays by name where the environment has several. */
  step(observation) {
    const parts = Array.isArray(observation) || ArrayBuffer.isView(observation) ? { observation } : observation;
    for (const [name, values] of Object.entries(parts)) this.inputs[name].set(values);
    const outputs = computed(NETWORKS.act, this.inputs);
    Object.assign(this.inputs, following(outputs, "memory_"));
    this.inputs.is_first[0] = 0;
    return outputs.action;
  }

  /** Another agent of the same memory. */
  copy() {
    const other = new Agent();
    for (const [name, values] of Object.entries(this.inputs)) other.inputs[name] = values.slice();
    return other;
  }

  /** A dream that begins with what the agent knows after its last step. */
  dream() {
    return new Dream(computed(NETWORKS.begin, this.inputs));
  }
}

/** The world model alone: it sees nothing of the environment any more. */
class Dream {
  constructor(begun) {
    this.now = begun;
  }

  /** One step under an action row (numbers in [-1, 1], or one-hot); of the policy by default. */
  step(row = this.now.next_row) {
    this.now = computed(NETWORKS.imagine, { ...following(this.now, "state_"), state_row: row });
    return this.now;
  }
}
