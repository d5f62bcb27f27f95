import type { Count } from "../../api/types";
import { useText } from "../../i18n";
import { useFormat } from "../../ui";
import styles from "./completions.module.css";
import type { Rows } from "./rows";

interface SummaryProps {
  count: Count | undefined;
  stale: boolean;
  list: Rows;
}

/** How many match, and what cannot be searched yet. */
export function Summary({ count, stale, list }: SummaryProps) {
  const t = useText();
  return (
    <div className={styles.summary}>
      <span role="status" data-stale={stale}>
        {useCountText(count)}
      </span>
      {list.searchPending > 0 && (
        <span className="small quiet">{t("completions.search_pending", { count: list.searchPending })}</span>
      )}
    </div>
  );
}

/** "1,234 match" or "10,000+ match"; nothing until it is known. */
function useCountText(count: Count | undefined): string {
  const t = useText();
  const format = useFormat();
  if (!count) return "";
  if (count.at_least) return t("completions.match_at_least", { number: format.number(count.count) });
  return t("completions.match", { count: count.count });
}
