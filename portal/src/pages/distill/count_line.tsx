import { useText } from "../../i18n";
import { Stat, useFormat } from "../../ui";
import type { Rows } from "./asking";
import styles from "./distill.module.css";

/** How many rows there are, and what will be left out. */
export function CountLine({ rows, kind }: { rows: Rows; kind: "filter" | "ids" | "file" }) {
  const t = useText();
  const { number } = useFormat();
  const { usable, incomplete, atLeast } = rows;
  return (
    <div className={styles.counts} role="status">
      <Stat
        label={t("distill.rows_usable")}
        value={usable === null ? "…" : atLeast ? t("distill.at_least", { count: usable }) : number(usable)}
      />
      {kind === "filter" && (
        <Stat
          label={t("distill.rows_left_out")}
          value={incomplete === null ? "–" : number(incomplete)}
          more={incomplete ? t("distill.left_out_why") : null}
        />
      )}
      {kind === "ids" && <p className="small quiet">{t("distill.left_out_later")}</p>}
    </div>
  );
}
