// A comparison as it is ordered: which models, on which stored completions, judged by whom.

import type { Filter, Metadata, Model } from "../../api/types";

export const COMPARISONS = "/v1/stillroom/comparisons";
/** The base that starts from random weights: there is nothing of it to put beside what was trained. */
const SCRATCH = "scratch-small";
export const USUAL_ITEMS = 200;

/** `training`: those that the first job's training data were chosen by, later ones included. */
export type Questions = "training" | "filter";

export interface Comparison {
  chosen: string[];
  questions: Questions;
  model: string;
  pairs: { key: string; value: string }[];
  heldOut: boolean;
  base: boolean;
  judge: string;
  limit: string;
  name: string;
}

export interface Started {
  eval_id: string;
  runs: string[];
  notes: string[];
}

/** What can be put beside a teacher, the newest fine-tuned model first. */
export function candidates(models: Model[]): Model[] {
  const order = ["fine_tuned", "checkpoint", "student_base", "teacher"];
  return models
    .filter((model) => model.can.chat && model.name !== SCRATCH)
    .sort(
      (one, other) =>
        order.indexOf(one.kind) - order.indexOf(other.kind) || (other.created_at ?? 0) - (one.created_at ?? 0),
    );
}

/** The jobs behind those chosen: by a job its training's selection and its base are known. */
export const jobsOf = (chosen: Model[]): string[] => [
  ...new Set(chosen.filter((model) => model.kind === "fine_tuned").flatMap((model) => (model.job ? [model.job] : []))),
];

/** Whether one of those chosen was made of a base that can be asked itself. */
export const hasBase = (chosen: Model[]): boolean =>
  chosen.some((model) => model.kind === "fine_tuned" && model.base !== null && model.base !== SCRATCH);

export function orderOf(comparison: Comparison, chosen: Model[]): Record<string, unknown> {
  const jobs = jobsOf(chosen);
  const others = chosen.filter((model) => model.kind !== "fine_tuned" || !model.job).map((model) => model.name);
  return {
    ...(jobs.length > 0 ? { jobs } : {}),
    ...(others.length > 0 ? { models: others } : {}),
    ...(comparison.questions === "filter" || jobs.length === 0 ? { filter: filterOf(comparison) } : {}),
    held_out: comparison.heldOut,
    base: comparison.base,
    limit: Number(comparison.limit),
    ...(comparison.judge ? { judge: comparison.judge } : {}),
    ...(comparison.name.trim() ? { name: comparison.name.trim() } : {}),
  };
}

export function filterOf({ model, pairs }: Comparison): Filter {
  const metadata: Metadata = Object.fromEntries(
    pairs.filter(({ key, value }) => key && value).map(({ key, value }) => [key, value]),
  );
  return { ...(model ? { model } : {}), ...(Object.keys(metadata).length > 0 ? { metadata } : {}) };
}
