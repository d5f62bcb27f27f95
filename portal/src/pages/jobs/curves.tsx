// The losses and the token accuracy, step by step, as a picture and as numbers.

import { lazy, Suspense, useMemo } from "react";
import type { Job } from "../../api/types";
import { type TextKey, useText } from "../../i18n";
import { ErrorNote, useFormat, Waiting } from "../../ui";
import type { Series } from "../../ui/chart";
import { useMetrics } from "./asking";
import styles from "./jobs.module.css";
import { type Lines, linesOf, loss, thinned } from "./metrics";

const Chart = lazy(() => import("../../ui/chart"));
const SHOWN_LINES = 40;

/** What the columns are called: of pairs, the accuracy is how often the better answer is preferred. */
function columnsOf(lines: Lines): TextKey[] {
  const [accuracy, ...more]: TextKey[] = arePairs(lines)
    ? ["jobs.preferred_share", "jobs.rewards_margin"]
    : ["jobs.train_accuracy"];
  return [
    "jobs.step",
    "jobs.train_loss",
    accuracy ?? "jobs.train_accuracy",
    ...more,
    "jobs.valid_loss",
    "jobs.valid_accuracy",
  ];
}

const arePairs = (lines: Lines): boolean => lines.rewardsMargin.some((value) => value !== null);

export function Curves({ one }: { one: Job }) {
  const t = useText();
  const metrics = useMetrics(one);
  const lines = useMemo(() => metrics.data && linesOf(metrics.data), [metrics.data]);
  return (
    <section className="card stack" aria-labelledby="curves">
      <div className="spread">
        <h2 id="curves">{t("jobs.curves")}</h2>
        {lines && lines.steps.length > 0 && <span className="small quiet">{t("jobs.zoom_hint")}</span>}
      </div>
      {metrics.error && !lines && <ErrorNote error={metrics.error} onRetry={metrics.refetch} />}
      {metrics.isPending && <Waiting />}
      {lines && lines.steps.length === 0 && <p className="quiet">{t("jobs.no_steps")}</p>}
      {lines && lines.steps.length > 0 && (
        <>
          <Picture lines={lines} />
          <InNumbers lines={lines} />
        </>
      )}
    </section>
  );
}

function Picture({ lines }: { lines: Lines }) {
  const t = useText();
  const { number, share } = useFormat();
  const series = useMemo<Series[]>(() => {
    const drawn: Series[] = [
      { label: t("jobs.train_loss"), color: "--student", values: lines.trainLoss },
      {
        label: t(columnsOf(lines)[2] ?? "jobs.train_accuracy"),
        color: "--good",
        values: lines.trainAccuracy,
        axis: "right",
      },
    ];
    if (arePairs(lines)) {
      drawn.push({ label: t("jobs.rewards_margin"), color: "--accent", values: lines.rewardsMargin, dash: true });
    }
    if (lines.validLoss.some((value) => value !== null)) {
      drawn.push({ label: t("jobs.valid_loss"), color: "--teacher", values: lines.validLoss, points: true });
    }
    if (lines.validAccuracy.some((value) => value !== null)) {
      const more = { axis: "right", points: true, dash: true } as const;
      drawn.push({ label: t("jobs.valid_accuracy"), color: "--warn", values: lines.validAccuracy, ...more });
    }
    return drawn;
  }, [lines, t]);
  return (
    <Suspense fallback={<div className={styles.chartSpace} />}>
      <Chart
        label={t(arePairs(lines) ? "jobs.chart_label_pairs" : "jobs.chart_label", { count: lines.steps.length })}
        x={lines.steps}
        series={series}
        xLabel={t("jobs.step")}
        height={320}
        format={(value) => (Math.abs(value) < 0.001 ? loss(value) : number(value))}
        formatRight={(value) => share(value, 0)}
      />
    </Suspense>
  );
}

/** The same for those who read rather than look. */
function InNumbers({ lines }: { lines: Lines }) {
  const t = useText();
  const { number, share } = useFormat();
  const accuracy = (value: number | null | undefined) => (value == null ? "–" : share(value, 1));
  return (
    <details>
      <summary>{t("jobs.in_numbers")}</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <section className={styles.numbers} tabIndex={0} aria-label={t("jobs.in_numbers")}>
        <table className={styles.plain}>
          <thead>
            <tr>
              {columnsOf(lines).map((name) => (
                <th key={name} scope="col">
                  {t(name)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {thinned(lines, SHOWN_LINES).map((index) => (
              <tr key={lines.steps[index]}>
                <th scope="row">{number(lines.steps[index] ?? 0)}</th>
                <td>{loss(lines.trainLoss[index] ?? null)}</td>
                <td>{accuracy(lines.trainAccuracy[index])}</td>
                {arePairs(lines) && <td>{loss(lines.rewardsMargin[index] ?? null)}</td>}
                <td>{loss(lines.validLoss[index] ?? null)}</td>
                <td>{accuracy(lines.validAccuracy[index])}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </details>
  );
}
