// Stored completions by their teacher and metadata; the other conditions came from the Completions page.

import { useQuery } from "@tanstack/react-query";
import { ALL_FACETS } from "../../api/shared";
import type { Facets, Filter } from "../../api/types";
import { useText } from "../../i18n";
import { ButtonLink, ErrorNote, IconButton, Note, Select, useFormat, Waiting } from "../../ui";
import { pairsOf } from "../completions/filter";
import styles from "./distill.module.css";
import type { StepProps } from "./step";
import { useStudentsAmong } from "./teachers";

/** So many keys are offered at once; the others unfold. */
const KEYS = 6;

type Facet = Facets["metadata"][number];

export function FilterRows({ filter, set }: { filter: Filter } & Pick<StepProps, "set">) {
  const t = useText();
  const facets = useQuery(ALL_FACETS);
  const students = useStudentsAmong(filter);
  const query = new URLSearchParams(pairsOf(filter)).toString();
  const keys = keysOf(facets.data, filter);
  const first = keys.filter((facet, index) => index < KEYS || filter.metadata?.[facet.key] !== undefined);
  const others = keys.filter((facet) => !first.includes(facet));
  const pick = (facet: Facet) => <Pair key={facet.key} facet={facet} filter={filter} set={set} />;
  return (
    <>
      {facets.isPending && <Waiting />}
      {facets.error && !facets.data && <ErrorNote error={facets.error} onRetry={facets.refetch} />}
      {facets.data && (
        <div className="grid">
          <Choice
            label={t("distill.teacher")}
            all={t("distill.all_teachers")}
            values={facets.data.models}
            value={filter.model ?? ""}
            onChange={(value) => set({ model: value })}
          />
          {first.map(pick)}
        </div>
      )}
      {students.length > 0 && (
        <Note tone="warn">
          <span className="said">
            {t("distill.students_among", { count: students.length, names: students.join(", ") })}
          </span>
        </Note>
      )}
      {others.length > 0 && (
        <details>
          <summary>{t("distill.more_metadata", { count: others.length })}</summary>
          <div className={`grid ${styles.unfolded}`}>{others.map(pick)}</div>
        </details>
      )}
      <div className="spread">
        <OtherConditions filter={filter} set={set} />
        <ButtonLink icon="filter" to={query ? `/completions?${query}` : "/completions"}>
          {t("distill.see_rows")}
        </ButtonLink>
      </div>
    </>
  );
}

function Pair({ facet, filter, set }: { facet: Facet; filter: Filter } & Pick<StepProps, "set">) {
  const t = useText();
  return (
    <Choice
      label={facet.key}
      all={t("distill.any_value")}
      values={facet.values}
      value={filter.metadata?.[facet.key] ?? ""}
      onChange={(value) => set({ [`metadata[${facet.key}]`]: value || null })}
    />
  );
}

interface ChoiceProps {
  label: string;
  /** What the entry for every value is called. */
  all: string;
  values: Facets["models"];
  value: string;
  onChange: (value: string) => void;
}

function Choice({ label, all, values, value, onChange }: ChoiceProps) {
  const { number } = useFormat();
  const known = values.map((one) => ({ value: one.value, label: `${one.value} (${number(one.count)})` }));
  // What the address names may be rarer than what is listed.
  const unlisted = value && !values.some((one) => one.value === value) ? [{ value, label: value }] : [];
  return (
    <Select
      label={label}
      choices={[{ value: "", label: all }, ...unlisted, ...known]}
      value={value}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

/** Time and search, each with a button that drops it. */
function OtherConditions({ filter, set }: { filter: Filter } & Pick<StepProps, "set">) {
  const t = useText();
  const { time } = useFormat();
  const { search, created_after: after, created_before: before, up_to: last } = filter;
  const shown: [string, string][] = [
    ...(search === undefined ? [] : [["search", t("distill.condition_search", { text: search })] as [string, string]]),
    ...(after === undefined
      ? []
      : [["created_after", t("distill.condition_after", { time: time(after) })] as [string, string]]),
    ...(before === undefined
      ? []
      : [["created_before", t("distill.condition_before", { time: time(before) })] as [string, string]]),
    ...(last === undefined ? [] : [["up_to", t("distill.condition_up_to", { id: last })] as [string, string]]),
  ];
  return (
    <ul className={styles.conditions}>
      {shown.map(([name, text]) => (
        <li key={name} className={styles.condition}>
          <span className="said">{text}</span>
          <IconButton
            icon="close"
            label={t("distill.drop", { condition: text })}
            onClick={() => set({ [name]: null })}
          />
        </li>
      ))}
    </ul>
  );
}

/** The keys to offer: those that are stored, and those of the address that are not. */
function keysOf(facets: Facets | undefined, filter: Filter): Facet[] {
  const stored = facets?.metadata ?? [];
  const asked = Object.keys(filter.metadata ?? {}).filter((key) => !stored.some((facet) => facet.key === key));
  return [...stored, ...asked.map((key) => ({ key, values: [], more: false }))];
}
