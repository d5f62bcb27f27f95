import type { Budget } from "../api/types";
import { useText } from "../i18n";
import styles from "./budget_bar.module.css";
import { useFormat } from "./format";

const NEARLY = 0.8;

/** How much of a budget is spent, drawn and said. */
export function BudgetBar({ budget }: { budget: Budget }) {
  const t = useText();
  const format = useFormat();
  const share = budget.limit_microusd > 0 ? budget.spent_microusd / budget.limit_microusd : 1;
  const tone = budget.spent ? "bad" : share >= NEARLY ? "warn" : "plain";
  const said = t(`common.budget_spent_${budget.period}`, {
    spent: format.money(budget.spent_microusd),
    limit: format.money(budget.limit_microusd),
    share: format.share(share, 0),
  });
  return (
    <div className={styles.budget}>
      <div className={styles.meter} aria-hidden="true">
        <div className={styles.spent} data-tone={tone} style={{ width: `${Math.min(100, share * 100)}%` }} />
      </div>
      <div className="spread small">
        <span className="number">{said}</span>
        {budget.ends_at !== null && (
          <span className="quiet">{t("common.budget_renews", { day: format.day(budget.ends_at) })}</span>
        )}
      </div>
      {budget.spent && <p className={styles.over}>{t("common.budget_over")}</p>}
    </div>
  );
}
