import type { Report, ReportSide } from "../../api/types";
import { useText } from "../../i18n";
import { Interval, useFormat } from "../../ui";
import styles from "./evals.module.css";

/** The figure that an eval is about: how often a model gives the teacher's answer; and what that saves. */
export function Headline({ side, report }: { side: ReportSide; report: Report }) {
  const t = useText();
  const unseen = side.training?.trained_on === 0;
  if (!side.agreement) return null;
  return (
    <div className={`card ${styles.headline}`}>
      <h2 className="said">{side.name}</h2>
      <p className="quiet">{t("evals.agrees")}</p>
      <Interval large {...side.agreement} />
      <p className="small quiet">
        {t(unseen ? "evals.of_held_out" : "evals.of_items", {
          agreeing: side.agreement.count,
          count: side.agreement.total,
        })}
      </p>
      <Saving side={side} report={report} />
    </div>
  );
}

function Saving({ side, report }: { side: ReportSide; report: Report }) {
  const t = useText();
  const format = useFormat();
  const before = report.teacher?.expense.microusd_per_1000_calls;
  const now = side.expense.microusd_per_1000_calls;
  if (!before || now === null) return null;
  const saved = 1 - now / before;
  return (
    <p>
      {t(saved >= 0 ? "evals.cheaper" : "evals.dearer", {
        now: format.money(now),
        before: format.money(before),
        share: format.share(Math.abs(saved)),
      })}
    </p>
  );
}
