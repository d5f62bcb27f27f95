import type { Filter } from "../../api/types";
import { useText } from "../../i18n";
import { Field } from "../../ui";
import styles from "./completions.module.css";
import { fromLocalInput, having, toLocalInput } from "./filter";

const HOUR = 3600;
const PRESETS = [
  ["hour", HOUR],
  ["day", 24 * HOUR],
  ["week", 7 * 24 * HOUR],
  ["month", 30 * 24 * HOUR],
] as const;

/** From when until when. A preset is counted from now, once: a reloaded page shows the same rows. */
export function TimeRange({ filter, onChange }: { filter: Filter; onChange: (filter: Filter) => void }) {
  const t = useText();
  const since = (seconds: number) => {
    const { created_before: _, ...others } = filter;
    onChange({ ...others, created_after: Math.floor(Date.now() / 1000) - seconds });
  };
  return (
    <div className={styles.times}>
      <div className={styles.presets}>
        {PRESETS.map(([name, seconds]) => (
          <button key={name} type="button" className={styles.preset} onClick={() => since(seconds)}>
            {t(`completions.last_${name}`)}
          </button>
        ))}
      </div>
      <Moment
        label={t("completions.from")}
        seconds={filter.created_after}
        onChange={(seconds) => onChange(having(filter, "created_after", seconds))}
      />
      <Moment
        label={t("completions.until")}
        seconds={filter.created_before}
        onChange={(seconds) => onChange(having(filter, "created_before", seconds))}
      />
    </div>
  );
}

interface MomentProps {
  label: string;
  seconds: number | undefined;
  onChange: (seconds: number | undefined) => void;
}

function Moment({ label, seconds, onChange }: MomentProps) {
  // Not taken while it is typed: a half-written year is a time, too.
  const take = (text: string) => {
    if (text !== toLocalInput(seconds)) onChange(fromLocalInput(text));
  };
  return (
    <Field label={label}>
      {(tied) => (
        <input
          key={seconds ?? "none"}
          type="datetime-local"
          className="input"
          defaultValue={toLocalInput(seconds)}
          onBlur={(event) => take(event.target.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter") take(event.currentTarget.value);
          }}
          {...tied}
        />
      )}
    </Field>
  );
}
