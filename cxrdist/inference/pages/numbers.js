"use strict";
// What is computed from scores and truths; nothing here touches the page.

// Bytes of a base64 text as an array of one kind.
function unpacked(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

// "TP" and its like of one image, or "" where its truth is not known.
function outcome(truth, score, threshold) {
  if (truth < 0) return "";
  return score >= threshold ? (truth ? "TP" : "FP") : (truth ? "FN" : "TN");
}

// Counts over all images; positive means score >= threshold, as everywhere in cxrdist.
function confusion(truths, scores, threshold) {
  const found = { TP: 0, FP: 0, FN: 0, TN: 0 };
  for (let i = 0; i < truths.length; i++) {
    const one = outcome(truths[i], scores[i], threshold);
    if (one) found[one]++;
  }
  return found;
}

// Shares of counts; null where the denominator is 0.
function rates({ TP, FP, FN, TN }) {
  const share = (a, b) => (b ? a / b : null);
  return {
    sensitivity: share(TP, TP + FN), specificity: share(TN, TN + FP), PPV: share(TP, TP + FP),
    NPV: share(TN, TN + FN), accuracy: share(TP + TN, TP + FP + FN + TN), F1: share(2 * TP, 2 * TP + FP + FN),
  };
}

// ROC from (0, 0) to (1, 1), one corner for each distinct score, and the area under it; null with one class only.
function rocOf(truths, scores) {
  const order = [];
  for (let i = 0; i < truths.length; i++) if (truths[i] >= 0) order.push(i);
  order.sort((a, b) => scores[b] - scores[a]);
  let positives = 0;
  for (const i of order) positives += truths[i];
  const negatives = order.length - positives;
  if (!positives || !negatives) return null;
  const points = [[0, 0]];
  let tp = 0, fp = 0, area = 0;
  for (let k = 0; k < order.length; k++) {
    if (truths[order[k]]) tp++; else fp++;
    if (k + 1 < order.length && scores[order[k + 1]] === scores[order[k]]) continue;
    const [x, y] = points[points.length - 1], next = [fp / negatives, tp / positives];
    area += (next[0] - x) * (next[1] + y) / 2;
    points.push(next);
  }
  return { points, area };
}

// A map of small cells at any resolution, bilinear between the middles of its cells; values 0 to 1.
function enlarged(cells, side, size) {
  const out = new Float32Array(size * size);
  const place = i => Math.min(side - 1, Math.max(0, (i + 0.5) * side / size - 0.5));
  for (let y = 0; y < size; y++) {
    const v = place(y), y0 = Math.floor(v), y1 = Math.min(side - 1, y0 + 1), fy = v - y0;
    for (let x = 0; x < size; x++) {
      const u = place(x), x0 = Math.floor(u), x1 = Math.min(side - 1, x0 + 1), fx = u - x0;
      const top = cells[y0 * side + x0] * (1 - fx) + cells[y0 * side + x1] * fx;
      const low = cells[y1 * side + x0] * (1 - fx) + cells[y1 * side + x1] * fx;
      out[y * size + x] = (top * (1 - fy) + low * fy) / 255;
    }
  }
  return out;
}

// Blue over green and yellow to red, as heat maps are usually drawn; v from 0 to 1.
function heatColour(v) {
  const part = (middle) => Math.round(255 * Math.min(1, Math.max(0, 1.5 - Math.abs(4 * v - middle))));
  return [part(3), part(2), part(1)];
}
