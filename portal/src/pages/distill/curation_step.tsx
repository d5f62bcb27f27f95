// Which rows are better left out: each check with how many rows it finds, and what the rows look like.

import { useText } from "../../i18n";
import { Check, ErrorNote, Note, TextInput, Waiting } from "../../ui";
import { useDataReport } from "./asking";
import { isLength, isSimilarity, LEAST_SIMILAR, type LengthLimit, LIKELY, LIMITS_OF_LENGTH } from "./curation";
import styles from "./curation.module.css";
import { DataReportView } from "./data_report";
import { UNKNOWN, useLanguageName } from "./language_name";
import type { StepProps } from "./step";

export function CurationStep(given: StepProps) {
  const t = useText();
  const { choices } = given;
  const found = useDataReport(choices, true);
  // Of the rows in all languages, so that another can be chosen besides one.
  const all = useDataReport({ ...choices, curation: { ...choices.curation, languages: [] } }, true);
  if (choices.source.kind === "file") return <Note>{t("distill.curation_file")}</Note>;
  return (
    <div className="stack">
      <p className={styles.text}>{t("distill.curation_text")}</p>
      <div className={styles.sides}>
        <div className="stack">
          <Checks {...given} found={found.data?.found} />
          <Languages {...given} languages={all.data?.languages ?? undefined} />
          <Lengths {...given} />
        </div>
        <div className="stack" aria-busy={found.isFetching}>
          {found.isFetching && <Waiting text={t("distill.curating")} />}
          {found.error && <ErrorNote error={found.error} onRetry={found.refetch} />}
          {found.data && <DataReportView report={found.data} />}
        </div>
      </div>
    </div>
  );
}

type Found = Record<string, number> | undefined;

function Checks({ choices: { curation }, set, found }: StepProps & { found: Found }) {
  const t = useText();
  return (
    <fieldset className={styles.checks}>
      <legend className="field-label">{t("distill.leave_out")}</legend>
      <OneCheck
        name="exact_duplicate"
        checked={curation.exact || curation.near !== ""}
        disabled={curation.near !== ""}
        found={found}
        onChoose={(chosen) => set({ duplicates: chosen ? "exact" : null })}
      />
      <div className={styles.near}>
        <OneCheck
          name="near_duplicate"
          checked={curation.near !== ""}
          found={found}
          onChoose={(chosen) => set({ near_duplicates: chosen ? String(LIKELY) : null })}
        />
        {curation.near !== "" && (
          <TextInput
            label={t("distill.similarity")}
            hint={t("distill.similarity_hint")}
            error={isSimilarity(curation.near) ? null : t("distill.similarity_wrong")}
            type="number"
            min={LEAST_SIMILAR}
            max={1}
            step={0.05}
            value={curation.near.trim()}
            onChange={(event) => set({ near_duplicates: event.target.value || " " })}
          />
        )}
      </div>
      <OneCheck
        name="refusal"
        checked={curation.refusals}
        found={found}
        onChoose={(chosen) => set({ refusals: chosen ? "out" : null })}
      />
      <OneCheck
        name="truncated"
        checked={curation.truncated}
        found={found}
        onChoose={(chosen) => set({ truncated: chosen ? "out" : null })}
      />
    </fieldset>
  );
}

interface OneCheckProps {
  name: "exact_duplicate" | "near_duplicate" | "refusal" | "truncated";
  checked: boolean;
  disabled?: boolean;
  found: Found;
  onChoose: (chosen: boolean) => void;
}

function OneCheck({ name, checked, disabled, found, onChoose }: OneCheckProps) {
  const t = useText();
  const count = found?.[name];
  return (
    <div>
      <Check
        label={
          <>
            {t(`distill.check_${name}`)} {count !== undefined && <Count rows={count} />}
          </>
        }
        checked={checked}
        disabled={disabled}
        onChange={(event) => onChoose(event.target.checked)}
      />
      <p className={styles.about}>{t(`distill.about_${name}`)}</p>
    </div>
  );
}

function Count({ rows }: { rows: number }) {
  const t = useText();
  return (
    <span className={styles.count} data-some={rows > 0}>
      {t("distill.rows_count", { count: rows })}
    </span>
  );
}

/** The languages that were found, and those that are chosen: with none chosen, all stay. */
function Languages({
  choices: { curation },
  set,
  languages,
}: StepProps & { languages: { name: string; count: number }[] | undefined }) {
  const t = useText();
  const nameOf = useLanguageName();
  const known = languages?.filter(({ name }) => name !== UNKNOWN) ?? [];
  const named = curation.languages.filter((name) => !known.some((one) => one.name === name));
  const offered = [...known, ...named.map((name) => ({ name, count: languages ? 0 : null }))];
  if (offered.length < 2 && curation.languages.length === 0) return null;
  const choose = (name: string, chosen: boolean) => {
    const left = curation.languages.filter((one) => one !== name);
    set({ languages: [...left, ...(chosen ? [name] : [])].sort().join(",") || null });
  };
  return (
    <fieldset className={styles.checks}>
      <legend className="field-label">{t("distill.languages")}</legend>
      <p className={styles.about}>{t("distill.about_languages")}</p>
      <div className={styles.languages}>
        {offered.slice(0, LANGUAGES).map(({ name, count }) => (
          <Check
            key={name}
            label={
              <>
                {nameOf(name)} {count !== null && <Count rows={count} />}
              </>
            }
            checked={curation.languages.includes(name)}
            onChange={(event) => choose(name, event.target.checked)}
          />
        ))}
      </div>
    </fieldset>
  );
}

function Lengths({ choices: { curation }, set }: StepProps) {
  const t = useText();
  const field = (name: LengthLimit) => (
    <TextInput
      key={name}
      label={t(`distill.length_${name}`)}
      error={isLength(curation.lengths[name]) ? null : t("distill.length_wrong")}
      type="text"
      inputMode="numeric"
      value={curation.lengths[name]}
      onChange={(event) => set({ [name]: event.target.value.trim() || null })}
    />
  );
  return (
    <fieldset className={styles.checks}>
      <legend className="field-label">{t("distill.lengths")}</legend>
      <div className={styles.lengths}>{LIMITS_OF_LENGTH.map(field)}</div>
    </fieldset>
  );
}

const LANGUAGES = 8;
