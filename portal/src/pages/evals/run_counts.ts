import type { EvalRun } from "../../api/types";

/** The share of graded items that passed every criterion; null when none was graded. */
export function passRate({ result_counts: { passed, failed } }: EvalRun): number | null {
  return passed + failed > 0 ? passed / (passed + failed) : null;
}
