// What a reader must know before believing a report's figures.

import type { Report, ReportSide } from "../../api/types";
import { type Translate, useText } from "../../i18n";
import type { Tone } from "../../ui";

interface ReportNote {
  text: string;
  tone: Tone;
}

export function useNotes(report: Report): ReportNote[] {
  const t = useText();
  return [...ofJudges(t, report), ...report.sides.flatMap((side) => ofSide(t, side)), ...ofGoing(t, report)];
}

function ofJudges(t: Translate, { judges, teacher }: Report): ReportNote[] {
  const own = judges.find((judge) => teacher && judge in teacher.models);
  return own ? [{ tone: "warn", text: t("evals.note_judge", { judge: own }) }] : [];
}

function ofSide(t: Translate, side: ReportSide): ReportNote[] {
  const { name, items: count } = side;
  const model = side.model ?? name;
  const found: ReportNote[] = [];
  if (side.training && side.training.trained_on === null) {
    found.push({ tone: "warn", text: t("evals.note_unknown", { name, model }) });
  }
  if (side.training?.trained_on) {
    found.push({
      tone: "bad",
      text: t("evals.note_trained", { name, model, trained: side.training.trained_on, count }),
    });
  }
  if (side.unanswered) {
    const problem = side.problem ?? "";
    found.push({ tone: "warn", text: t("evals.note_unanswered", { name, left: side.unanswered, count, problem }) });
  }
  for (const one of side.criteria.filter((criterion) => criterion.errored > 0)) {
    const values = { name, criterion: one.name, left: one.errored, count, problem: one.problem ?? "" };
    found.push({ tone: "warn", text: t("evals.note_ungraded", values) });
  }
  if (side.status === "failed") found.push({ tone: "warn", text: t("evals.note_failed", { name }) });
  if (side.status === "cancelled") found.push({ tone: "plain", text: t("evals.note_cancelled", { name }) });
  return found;
}

function ofGoing(t: Translate, { sides }: Report): ReportNote[] {
  const going = sides.filter((side) => side.status === "queued" || side.status === "running");
  return going.length > 0 ? [{ tone: "plain", text: t("evals.note_going", { count: going.length }) }] : [];
}
