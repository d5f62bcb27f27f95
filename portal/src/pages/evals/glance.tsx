import type { ReactNode } from "react";
import type { Report, ReportSide } from "../../api/types";
import { type Translate, useText } from "../../i18n";
import { type Format, Interval, useFormat } from "../../ui";
import styles from "./evals.module.css";

interface Line {
  title: string;
  teacher: ReactNode;
  sides: ReactNode[];
}

/** The teacher and every run side by side, a line for each figure. */
export function Glance({ report }: { report: Report }) {
  const t = useText();
  const lines = linesOf(report, t, useFormat());
  const { teacher } = report;
  return (
    <section className="stack">
      <h2>{t("evals.glance")}</h2>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <section className="table-frame" tabIndex={0} aria-label={t("evals.glance")}>
        <table className={styles.glance}>
          <thead>
            <tr>
              <th scope="col">
                <span className="unseen">{t("evals.figure")}</span>
              </th>
              {teacher && (
                <th scope="col" className={styles.teacher}>
                  {t("evals.teacher", { names: Object.keys(teacher.models).join(", ") })}
                </th>
              )}
              {report.sides.map((side) => (
                <th key={side.run_id} scope="col" className={`${styles.student} said`}>
                  {side.name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {lines.map((line) => (
              <tr key={line.title}>
                <th scope="row">{line.title}</th>
                {teacher && <td>{line.teacher}</td>}
                {line.sides.map((cell, at) => (
                  <td key={report.sides[at]?.run_id}>{cell}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </section>
  );
}

const NOTHING = "–";

function linesOf({ teacher, sides, judges }: Report, t: Translate, format: Format): Line[] {
  const line = (title: string, ofTeacher: ReactNode, ofSide: (side: ReportSide) => ReactNode): Line => ({
    title,
    teacher: ofTeacher,
    sides: sides.map(ofSide),
  });
  const lines = [line(t("evals.items"), teacher && format.number(teacher.items), (side) => format.number(side.items))];
  if (sides.some((side) => side.agreement)) {
    lines.push(
      line(t("evals.agreement"), NOTHING, (side) => (side.agreement ? <Interval {...side.agreement} /> : NOTHING)),
    );
  }
  for (const name of new Set(sides.flatMap((side) => side.criteria.map((one) => one.name)))) {
    if (sides.every((side) => isAgreement(side, name))) continue;
    lines.push(line(name, NOTHING, (side) => <Passed side={side} name={name} />));
  }
  if (sides.some((side) => side.judged)) {
    lines.push(line(t("evals.judged", { judges: judges.join(", ") }), NOTHING, (side) => <Judged side={side} />));
  }
  const speed = ({ p50_ms, p95_ms }: ReportSide["speed"]) =>
    p50_ms === null ? NOTHING : `${format.duration(p50_ms)} / ${format.duration(p95_ms)}`;
  const tokens = (expense: ReportSide["expense"]) =>
    expense.prompt_tokens
      ? `${format.number(Math.round(expense.prompt_tokens))} / ${format.number(Math.round(expense.completion_tokens))}`
      : NOTHING;
  lines.push(
    line(t("evals.latency"), teacher && speed(teacher.speed), (side) => speed(side.speed)),
    line(t("evals.tokens"), teacher && tokens(teacher.expense), (side) => tokens(side.expense)),
    line(t("evals.price"), teacher && format.money(teacher.expense.microusd_per_1000_calls), (side) =>
      format.money(side.expense.microusd_per_1000_calls),
    ),
  );
  const earned = sides.find((side) => side.earning)?.earning;
  if (earned) {
    lines.push(
      line(t("evals.day"), format.money(earned.teacher_microusd_per_day), (side) =>
        format.money(side.earning?.student_microusd_per_day),
      ),
      line(t("evals.training"), NOTHING, (side) => earning(side, t, format)),
    );
  }
  if (sides.some((side) => side.training)) {
    lines.push(line(t("evals.held_out"), NOTHING, (side) => <HeldOut side={side} />));
  }
  return lines;
}

/** Whether a criterion is the exact agreement over again, as "same text" is but for tool calls and outer space. */
function isAgreement(side: ReportSide, name: string): boolean {
  const found = side.criteria.find((one) => one.name === name);
  if (found?.type !== "string_check" || !found.passed || !side.agreement) return false;
  return found.passed.count === side.agreement.count && found.passed.total === side.agreement.total;
}

function Passed({ side, name }: { side: ReportSide; name: string }) {
  const t = useText();
  const found = side.criteria.find((one) => one.name === name);
  if (!found?.passed) return NOTHING;
  // A criterion that only says yes or no has its share as its mean.
  const graded = !["string_check", "label_model"].includes(found.type) && found.mean_score !== null;
  return (
    <>
      <Interval {...found.passed} />
      {graded && <div className="small quiet">{t("evals.mean", { score: (found.mean_score ?? 0).toFixed(3) })}</div>}
    </>
  );
}

function Judged({ side }: { side: ReportSide }) {
  const t = useText();
  if (!side.judged) return NOTHING;
  const { wins, ties, losses, win_or_tie } = side.judged;
  return (
    <>
      <div>{t("evals.preferences", { wins, ties, losses })}</div>
      {win_or_tie && <Interval {...win_or_tie} />}
    </>
  );
}

function earning({ earning }: ReportSide, t: Translate, format: Format): string {
  if (!earning?.training_microusd) return NOTHING;
  const cost = format.money(earning.training_microusd);
  if (earning.days !== null) return t("evals.earned", { cost, count: Math.round(earning.days * 10) / 10 });
  return t(earning.teacher_microusd_per_day ? "evals.never_earned" : "evals.no_traffic", { cost });
}

function HeldOut({ side }: { side: ReportSide }) {
  const t = useText();
  if (!side.training) return NOTHING;
  const { tuned, trained_on, left_out } = side.training;
  if (!tuned) return t("evals.untuned");
  if (trained_on === null) return t("evals.held_out_unknown");
  if (trained_on > 0) {
    return <strong className={styles.bad}>{t("evals.held_out_no", { trained: trained_on, count: side.items })}</strong>;
  }
  return (
    <span className={styles.good}>
      {t("evals.held_out_yes")}
      {left_out > 0 && t("evals.left_out", { count: left_out })}
    </span>
  );
}
