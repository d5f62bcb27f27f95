// A job's figures, step by step: appended to as they come, and lined up for the chart.

import type { JobMetrics } from "../../api/types";

/** After which step to ask for more. */
export function lastStepOf(known: JobMetrics | undefined): number {
  if (!known) return 0;
  return Math.max(known.steps.at(-1) ?? 0, known.valid.at(-1)?.step ?? 0);
}

/** What was known with what came after it. */
export function merged(known: JobMetrics | undefined, fresh: JobMetrics): JobMetrics {
  // A shorter run than the known one is another run: its folder was put back from a copy.
  if (!known || fresh.last_step < lastStepOf(known)) return fresh;
  if (fresh.steps.length === 0 && fresh.valid.length === 0) {
    return known.total_steps === fresh.total_steps && known.last_step === fresh.last_step
      ? known
      : { ...known, total_steps: fresh.total_steps, last_step: fresh.last_step };
  }
  const since = lastStepOf(known);
  const first = fresh.steps.findIndex((step) => step > since);
  const from = first < 0 ? fresh.steps.length : first;
  return {
    ...fresh,
    steps: [...known.steps, ...fresh.steps.slice(from)],
    train_loss: [...known.train_loss, ...fresh.train_loss.slice(from)],
    train_mean_token_accuracy: [...known.train_mean_token_accuracy, ...fresh.train_mean_token_accuracy.slice(from)],
    rewards_margin: [...(known.rewards_margin ?? []), ...(fresh.rewards_margin ?? []).slice(from)],
    valid: [...known.valid, ...fresh.valid.filter((point) => point.step > since)],
  };
}

/** One line of figures a step; the validation's are null where there was none. */
export interface Lines {
  steps: number[];
  trainLoss: (number | null)[];
  trainAccuracy: (number | null)[];
  validLoss: (number | null)[];
  validAccuracy: (number | null)[];
  /** Of jobs that learn from pairs; else all null. */
  rewardsMargin: (number | null)[];
}

export function linesOf(metrics: JobMetrics): Lines {
  const train = new Map(metrics.steps.map((step, index) => [step, index]));
  const valid = new Map(metrics.valid.map((point) => [point.step, point]));
  const steps = [...new Set([...metrics.steps, ...valid.keys()])].sort((one, other) => one - other);
  const ofTrain = (values: (number | null)[]) => steps.map((step) => values[train.get(step) ?? -1] ?? null);
  return {
    steps,
    trainLoss: ofTrain(metrics.train_loss),
    trainAccuracy: ofTrain(metrics.train_mean_token_accuracy),
    validLoss: steps.map((step) => valid.get(step)?.valid_loss ?? null),
    validAccuracy: steps.map((step) => valid.get(step)?.valid_mean_token_accuracy ?? null),
    rewardsMargin: ofTrain(metrics.rewards_margin ?? []),
  };
}

/** Indices of about `most` lines, evenly apart, with the first, the last, and each that has a validation. */
export function thinned(lines: Lines, most: number): number[] {
  const count = lines.steps.length;
  const apart = Math.max(1, Math.ceil(count / most));
  return lines.steps
    .map((_, index) => index)
    .filter((index) => index % apart === 0 || index === count - 1 || lines.validLoss[index] !== null);
}

/** A loss needs digits that say something also when it is nearly nothing. */
export function loss(value: number | null): string {
  if (value === null) return "–";
  if (value === 0) return "0";
  return Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(3);
}
