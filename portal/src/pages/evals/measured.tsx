import { useText } from "../../i18n";
import styles from "./evals.module.css";

const MEASURES = ["agreement", "interval", "judged", "latency", "price", "day", "held_out", "chance"] as const;

/** How each figure of the report was come by. */
export function Measured() {
  const t = useText();
  return (
    <details className="card">
      <summary>{t("evals.measured")}</summary>
      <dl className={styles.measured}>
        {MEASURES.map((name) => (
          <div key={name}>
            <dt>{t(`evals.measure_${name}`)}</dt>
            <dd className="quiet">{t(`evals.measured_${name}`)}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
