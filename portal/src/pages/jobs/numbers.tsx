// What the job was told and what "auto" became; what it was quoted at and what it came to.

import type { Job, QuoteComparison, ResolvedHyperparameters } from "../../api/types";
import { useText } from "../../i18n";
import { useFormat } from "../../ui";
import { useAuto, useQuoteComparison } from "./asking";
import styles from "./jobs.module.css";
import { hasEnded, ITSELF, methodOf } from "./state";

const NAMES = ["n_epochs", "batch_size", "learning_rate_multiplier"] as const;
/** Shown of the jobs that have them. */
const OF_METHODS = ["beta", "soft_label_weight"] as const;

export function Numbers({ one }: { one: Job }) {
  const t = useText();
  const { number } = useFormat();
  const auto = useAuto(one);
  const comparison = useQuoteComparison(one);
  const { job } = one;
  const prompt = job.hyperparameters?.system_prompt;
  const judge = job.method?.on_policy?.teacher;
  const names = [...NAMES, ...OF_METHODS.filter((name) => job.hyperparameters?.[name])];
  return (
    <section className="card stack" aria-labelledby="numbers">
      <h2 id="numbers">{t("jobs.numbers")}</h2>
      <table className={styles.plain}>
        <thead>
          <tr>
            <td />
            <th scope="col">{t("jobs.used")}</th>
            <th scope="col">{t("jobs.auto_gives")}</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">{t("jobs.method")}</th>
            <td colSpan={2}>{t(`jobs.method_${methodOf(job)}`)}</td>
          </tr>
          {judge !== undefined && (
            <tr>
              <th scope="row">{t("jobs.on_policy_teacher")}</th>
              <td colSpan={2} className="said">
                {judge === ITSELF ? t("jobs.on_policy_itself") : judge}
              </td>
            </tr>
          )}
          {prompt !== undefined && (
            <tr>
              <th scope="row">{t("jobs.label_system_prompt")}</th>
              <td colSpan={2}>{t(prompt === "drop" ? "jobs.system_prompt_drop" : "jobs.system_prompt_keep")}</td>
            </tr>
          )}
          {names.map((name) => (
            <tr key={name}>
              <th scope="row">{t(`jobs.label_${name}`)}</th>
              <td>{written(job.hyperparameters?.[name], number, t("jobs.auto"))}</td>
              <td className="quiet" title={auto.data?.why[name]}>
                {auto.data ? written(auto.data.values[name], number, t("jobs.auto")) : "–"}
              </td>
            </tr>
          ))}
          <tr>
            <th scope="row">{t("jobs.id")}</th>
            <td colSpan={2} className="mono">
              {job.id}
            </td>
          </tr>
          <tr>
            <th scope="row">{t("jobs.seed")}</th>
            <td colSpan={2}>{job.seed}</td>
          </tr>
          <tr>
            <th scope="row">{t("jobs.rows")}</th>
            <td colSpan={2}>{rowsOf(one, auto.data, number)}</td>
          </tr>
          <tr>
            <th scope="row">{t("jobs.trained_tokens")}</th>
            <td colSpan={2}>{job.trained_tokens === null ? "–" : number(job.trained_tokens)}</td>
          </tr>
        </tbody>
      </table>
      {comparison.data && (comparison.data.predicted || hasEnded(job)) && <Quoted comparison={comparison.data} />}
    </section>
  );
}

function Quoted({ comparison }: { comparison: QuoteComparison }) {
  const t = useText();
  const { number, money, duration, share } = useFormat();
  const { predicted, actual, relative_error: error } = comparison;
  if (!predicted) return <p className="small quiet">{t("jobs.no_quote")}</p>;
  const minutes = (value: number | null | undefined) => (value == null ? "–" : duration(value * 60_000));
  const off = (value: number | null | undefined) =>
    value == null ? "–" : `${value > 0 ? "+" : ""}${share(value, Math.abs(value) < 0.1 ? 1 : 0)}`;
  return (
    <>
      <h3>{t("jobs.quote")}</h3>
      <table className={styles.plain}>
        <thead>
          <tr>
            <td />
            <th scope="col">{t("jobs.quoted")}</th>
            <th scope="col">{t("jobs.actual")}</th>
            <th scope="col">{t("jobs.off_by")}</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">{t("jobs.trained_tokens")}</th>
            <td>{number(predicted.trained_tokens)}</td>
            <td>{actual ? number(actual.trained_tokens) : "–"}</td>
            <td>{off(error?.trained_tokens)}</td>
          </tr>
          <tr>
            <th scope="row">{t("jobs.price")}</th>
            <td>{money(predicted.cost_microusd)}</td>
            <td>{actual ? money(actual.cost_microusd) : "–"}</td>
            <td>{off(error?.cost)}</td>
          </tr>
          <tr>
            <th scope="row">{t("jobs.time")}</th>
            <td>
              {minutes(predicted.minutes.expected)}
              <span className={styles.range}>
                {minutes(predicted.minutes.low)} – {minutes(predicted.minutes.high)}
              </span>
            </td>
            <td>{minutes(actual?.minutes)}</td>
            <td>{off(error?.minutes)}</td>
          </tr>
        </tbody>
      </table>
    </>
  );
}

function rowsOf(one: Job, auto: ResolvedHyperparameters | undefined, number: (value: number) => string): string {
  const rows = one.examples ?? auto?.examples;
  return rows === undefined ? "–" : number(rows);
}

function written(value: string | number | null | undefined, number: (value: number) => string, auto: string): string {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? number(value) : value === "auto" ? auto : value;
}
