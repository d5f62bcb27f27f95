// What forbids going on, and at which step it is put right.

import { ApiError } from "../../api/http";
import type { TextKey, Values } from "../../i18n";
import {
  hyperparametersOf,
  isHyperparameter,
  isSeed,
  isSuffix,
  isWeight,
  LIMITS,
  MINIMUM,
  STEPS,
  type Step,
} from "./choices";
import { isCuration } from "./curation";
import type { StepProps } from "./step";

/** A text and what is filled in. */
export interface Told {
  key: TextKey;
  values?: Values;
}

interface Problem {
  step: Step;
  told: Told;
}

/** The first thing that is in the way of leaving `step`; null when nothing is. */
export function firstProblem(given: StepProps, step: Step): Problem | null {
  for (const one of STEPS.slice(0, STEPS.indexOf(step) + 1)) {
    const told = CHECKS[one](given);
    if (told) return { step: one, told };
  }
  return null;
}

const CHECKS: Record<Step, (given: StepProps) => Told | null> = {
  rows: ({ choices: { source }, allRows: rows }) => {
    if (source.kind === "ids" && source.ids === null) return { key: "distill.ids_gone" };
    if (source.kind === "file" && source.file === "") return { key: "distill.no_file" };
    if (rows.error != null)
      return { key: isFewInFile(rows.error) ? "distill.not_enough_in_file" : "distill.rows_unknown" };
    if (rows.usable === null) return { key: "distill.counting" };
    return rows.usable < MINIMUM ? tooFew(rows.usable) : null;
  },
  curation: ({ choices, rows }) => {
    if (!isCuration(choices.curation)) return { key: "distill.curation_wrong" };
    if (rows.error != null) return { key: "distill.rows_unknown" };
    if (rows.usable === null) return { key: "distill.counting" };
    return rows.usable < MINIMUM ? tooFew(rows.usable) : null;
  },
  split: ({ training }) => (training < MINIMUM ? tooFew(training) : null),
  student: ({ student, choices }) => {
    if (student === null) return { key: "distill.no_student" };
    return isSuffix(choices.suffix) ? null : { key: "distill.suffix_wrong" };
  },
  hyperparameters: ({ choices }) => {
    const wrong = hyperparametersOf(choices.method).find(
      (name) => !isHyperparameter(name, choices.hyperparameters[name]),
    );
    if (wrong) return { key: `distill.wrong_${wrong}`, values: { most: LIMITS[wrong].most } };
    if (!isWeight(choices.softLabels)) return { key: "distill.soft_labels_wrong" };
    return isSeed(choices.jobSeed) ? null : { key: "distill.seed_wrong" };
  },
  quote: () => null,
};

const isFewInFile = (error: unknown) => error instanceof ApiError && error.code === "invalid_n_examples";

const tooFew = (count: number): Told => ({ key: "distill.not_enough", values: { count, minimum: MINIMUM } });
