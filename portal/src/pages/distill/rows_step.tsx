// Which rows: stored completions by filter, some chosen one by one, or a training file.

import { useText } from "../../i18n";
import { ButtonLink, ErrorNote, Note, Tabs, Waiting } from "../../ui";
import { conditionsOf, pairsOf } from "../completions/filter";
import { useSample } from "./asking";
import { FEW, MINIMUM } from "./choices";
import { CountLine } from "./count_line";
import styles from "./distill.module.css";
import { FileRows } from "./file_rows";
import { FilterRows } from "./filter_rows";
import type { StepProps } from "./step";

export function RowsStep(given: StepProps) {
  const t = useText();
  const { choices, rows, set } = given;
  const { source } = choices;
  const choose = (kind: "stored" | "file") => {
    if (kind === "file") set({ file: "", ids: null });
    else set({ file: null, validation: null });
  };
  return (
    <div className="stack">
      <Tabs
        label={t("distill.source")}
        tabs={[
          { name: "stored", label: t("distill.source_stored") },
          { name: "file", label: t("distill.source_file") },
        ]}
        chosen={source.kind === "file" ? "file" : "stored"}
        onChoose={choose}
      >
        {source.kind === "file" && <FileRows file={source.file} set={set} />}
        {source.kind === "filter" && <FilterRows filter={source.filter} set={set} />}
        {source.kind === "ids" && <ChosenRows ids={source.ids} set={set} />}
      </Tabs>
      {rows.error != null && <ErrorNote error={rows.error} onRetry={rows.retry} />}
      {hasRows(given) && (
        <>
          <CountLine rows={rows} kind={source.kind} />
          <Judgement {...given} />
          {(rows.usable ?? 0) > 0 && <Sample {...given} />}
        </>
      )}
    </div>
  );
}

function hasRows({ choices: { source }, rows }: StepProps): boolean {
  if (rows.error != null) return false;
  return source.kind === "ids" ? source.ids !== null : source.kind !== "file" || source.file !== "";
}

/** Too few to train at all, or few for a good student. */
function Judgement({ choices, rows }: StepProps) {
  const t = useText();
  const { usable } = rows;
  if (usable === null) return null;
  if (usable === 0 && choices.source.kind === "filter") {
    const filter = choices.source.filter;
    const query = new URLSearchParams(pairsOf(filter)).toString();
    return (
      <Note
        tone="bad"
        action={<ButtonLink to={query ? `/completions?${query}` : "/completions"}>{t("completions.title")}</ButtonLink>}
      >
        {t(conditionsOf(filter) ? "distill.none_match" : "distill.none_stored")}
      </Note>
    );
  }
  if (usable < MINIMUM)
    return <Note tone="bad">{t("distill.not_enough_why", { count: usable, minimum: MINIMUM })}</Note>;
  if (usable < FEW) return <Note tone="warn">{t("distill.few", { count: usable, few: FEW })}</Note>;
  return null;
}

function ChosenRows({ ids, set }: { ids: string[] | null } & Pick<StepProps, "set">) {
  const t = useText();
  return (
    <Note tone={ids ? "plain" : "warn"} action={<ButtonLink to="/completions">{t("distill.choose_again")}</ButtonLink>}>
      {ids ? t("distill.ids_chosen", { count: ids.length }) : t("distill.ids_gone")}{" "}
      <button type="button" className={styles.link} onClick={() => set({ ids: null })}>
        {t("distill.by_conditions")}
      </button>
    </Note>
  );
}

function Sample({ choices }: StepProps) {
  const t = useText();
  const sample = useSample(choices.source);
  return (
    <section className="stack" aria-labelledby="sample">
      <h3 id="sample">{t("distill.sample")}</h3>
      {sample.isPending && <Waiting />}
      {sample.error && <ErrorNote error={sample.error} onRetry={sample.refetch} />}
      <ul className={styles.sample}>
        {sample.data?.map((example) => (
          <li key={example.id} className="card">
            <p className="small quiet">{t("distill.asked")}</p>
            <p className="said">{example.question || "–"}</p>
            <p className={styles.teacher}>{t(example.worse === undefined ? "distill.answered" : "distill.better")}</p>
            <p className="said">
              {[example.answer, ...example.calls.map((name) => `${name}()`)].filter(Boolean).join("\n") || "–"}
            </p>
            {example.worse !== undefined && (
              <>
                <p className={styles.worse}>{t("distill.worse")}</p>
                <p className="said">{example.worse || "–"}</p>
              </>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
