// What it will cost and how long it will take, measured here; and the button that starts it.

import { Link } from "wouter";
import { ApiError } from "../../api/http";
import type { Quote } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note, Stat, useFormat, Waiting } from "../../ui";
import { useAuto, useQuote } from "./asking";
import { Earning } from "./break_even";
import { type Choices, hyperparametersOf } from "./choices";
import styles from "./distill.module.css";
import { useStart } from "./starting";
import type { StepProps } from "./step";

const MINUTE_MS = 60_000;

export function QuoteStep(given: StepProps) {
  const t = useText();
  const { choices, rows, student } = given;
  const quote = useQuote(choices, rows.usable ?? 0, student);
  return (
    <div className="stack">
      <Plan {...given} />
      {quote.isFetching && <Waiting text={t("distill.measuring")} />}
      {quote.error && !quote.isFetching && (
        <>
          <ErrorNote error={quote.error} onRetry={quote.refetch} />
          <Advice error={quote.error} />
        </>
      )}
      {quote.data && !quote.isFetching && (
        <>
          <Figures quote={quote.data} />
          {quote.data.warnings.length > 0 && (
            <Note tone="warn">
              <ul className={styles.warnings}>
                {quote.data.warnings.map((warning) => (
                  <li key={warning} className="said">
                    {warning}
                  </li>
                ))}
              </ul>
            </Note>
          )}
          {quote.data.break_even && <Earning found={quote.data.break_even} />}
        </>
      )}
      <Start {...given} measured={quote.isSuccess && !quote.isFetching} again={quote.refetch} />
    </div>
  );
}

/** What will be started, which is known before it is measured. */
function Plan({ choices, rows, student, training, validation }: StepProps) {
  const t = useText();
  const { number } = useFormat();
  const auto = useAuto(student, training, choices.method, choices.hyperparameters);
  const { method, suffix, jobSeed } = choices;
  const shown: [string, string][] = [
    [t("distill.student"), student ?? "–"],
    ...(suffix ? [[t("distill.suffix"), suffix] as [string, string]] : []),
    [
      t("distill.step_rows"),
      t(rows.atLeast ? "distill.parts_at_least" : "distill.parts", {
        training: number(training),
        validation: number(validation),
      }),
    ],
    [t("distill.method"), t(`distill.method_${method}`)],
    ...extrasOf(choices, t),
    ...hyperparametersOf(method).map((name): [string, string] => {
      const value = auto.data?.values[name];
      return [t(`distill.label_${name}`), typeof value === "number" ? number(value) : String(value ?? "–")];
    }),
    ...(jobSeed ? [[t("distill.job_seed"), jobSeed] as [string, string]] : []),
  ];
  return (
    <section aria-labelledby="plan">
      <h3 id="plan">{t("distill.plan")}</h3>
      <dl className={styles.plan}>
        {shown.map(([name, value]) => (
          <div key={name}>
            <dt className="quiet">{name}</dt>
            <dd className="said">{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** What is asked of the method besides its numbers. */
function extrasOf(
  { method, judge, dropPrompt, softLabels }: Choices,
  t: ReturnType<typeof useText>,
): [string, string][] {
  const teacher = judge || t("distill.on_policy_itself");
  return [
    ...(method === "on_policy" ? [[t("distill.on_policy_teacher"), teacher] as [string, string]] : []),
    ...(dropPrompt ? [[t("distill.system_prompt"), t("distill.prompt_dropped")] as [string, string]] : []),
    ...(Number(softLabels) > 0 ? [[t("distill.soft_labels"), softLabels] as [string, string]] : []),
  ];
}

function Figures({ quote }: { quote: Quote }) {
  const t = useText();
  const { number, money, usd, duration } = useFormat();
  const { low, expected, high } = quote.minutes;
  const minutes = (value: number) => duration(value * MINUTE_MS);
  return (
    <>
      <div className={styles.figures}>
        <Stat
          label={t("distill.price")}
          value={money(quote.cost_microusd)}
          more={t("distill.tokens_to_train", { count: quote.trained_tokens })}
        />
        <Stat
          label={t("distill.time")}
          value={minutes(expected)}
          more={t("distill.between", { low: minutes(low), high: minutes(high) })}
        />
        <Stat
          label={t("distill.passes")}
          value={t("distill.steps_count", { count: quote.steps })}
          more={t("distill.passes_more", {
            epochs: quote.n_epochs,
            batch: quote.batch_size,
            multiplier: quote.learning_rate_multiplier,
          })}
        />
        {quote.dropped_prompt_tokens != null && (
          <Stat label={t("distill.saved")} value={number(quote.dropped_prompt_tokens)} more={t("distill.saved_more")} />
        )}
        <Stat label={t("distill.hosting")} value={usd(quote.hosting_usd_per_month)} more={t("distill.hosting_more")} />
        <Stat
          label={t("distill.rows_trained")}
          value={number(quote.examples)}
          more={t("distill.rows_held_back", { count: quote.validation_examples })}
        />
      </div>
      <p className="small quiet">
        {t("distill.measured")} <span lang="en">{quote.measured}</span>
      </p>
    </>
  );
}

function Start({ choices, rows, student, measured, again }: StepProps & { measured: boolean; again: () => void }) {
  const t = useText();
  const { start, starting, files } = useStart(choices, rows.usable ?? 0, student);
  const made = starting.error ? files() : null;
  const isLost = starting.error instanceof ApiError && starting.error.status === 0;
  const busy = starting.isPending || starting.isSuccess;
  return (
    <>
      {starting.error && <ErrorNote error={starting.error} />}
      {starting.error && (
        <p>
          {isLost ? t("distill.lost") : t(adviceOf(starting.error))}{" "}
          {isBudget(starting.error) && <Link href="/usage">{t("usage.title")}</Link>}{" "}
          {made?.made && t("distill.files_kept", { file: made.training })}{" "}
          {made?.made && <Link href="/files">{t("files.title")}</Link>}
        </p>
      )}
      <div className="row">
        <Button kind="primary" icon="distill" busy={busy} onClick={start}>
          {busy ? t("distill.starting") : t("distill.start")}
        </Button>
        {measured && (
          <Button icon="refresh" disabled={busy} onClick={again}>
            {t("distill.measure_again")}
          </Button>
        )}
        {!measured && <span className="small quiet">{t("distill.start_early")}</span>}
      </div>
    </>
  );
}

function Advice({ error }: { error: unknown }) {
  const t = useText();
  return (
    <p>
      {t(adviceOf(error))} {isBudget(error) && <Link href="/usage">{t("usage.title")}</Link>}
    </p>
  );
}

const isBudget = (error: unknown): boolean => error instanceof ApiError && error.overBudget;

/** What to do about a refusal. */
function adviceOf(error: unknown) {
  if (!(error instanceof ApiError)) return "distill.advice" as const;
  if (isBudget(error)) return "distill.advice_budget" as const;
  if (error.param === "model") return "distill.advice_student" as const;
  if (error.param?.endsWith("_file") || error.param === "filter" || error.param === "ids") {
    return "distill.advice_rows" as const;
  }
  return "distill.advice" as const;
}
