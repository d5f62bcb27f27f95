import { useText } from "../../i18n";
import { Field } from "../../ui";
import type { Side } from "./answer";
import { GROUPS, type Names } from "./names";
import styles from "./playground.module.css";

interface ModelChoiceProps {
  side: Side;
  value: string;
  names: Names;
  disabled: boolean;
  onChoose: (name: string) => void;
}

/** Who answers on a side; nobody is a choice too. */
export function ModelChoice({ side, value, names, disabled, onChoose }: ModelChoiceProps) {
  const t = useText();
  const found = names.all.find((one) => one.name === value);
  return (
    <div className={styles.choice} data-tone={toneOf(found, value)}>
      <Field label={t(`playground.model_${side}`)}>
        {(tied) => (
          <select
            className="input"
            {...tied}
            value={value}
            disabled={disabled}
            onChange={(event) => onChoose(event.target.value)}
          >
            <option value="">{t("playground.nobody")}</option>
            {value && !found && <option value={value}>{t("playground.not_found", { name: value })}</option>}
            {GROUPS.map((group) => {
              const members = names.all.filter((one) => one.group === group);
              if (!members.length) return null;
              return (
                <optgroup key={group} label={t(`playground.group_${group}`)}>
                  {members.map((one) => (
                    <option key={one.name} value={one.name}>
                      {one.name}
                    </option>
                  ))}
                </optgroup>
              );
            })}
          </select>
        )}
      </Field>
    </div>
  );
}

function toneOf(known: { isTeacher: boolean } | undefined, name: string): "teacher" | "student" | undefined {
  if (!name) return undefined;
  return known?.isTeacher ? "teacher" : "student";
}
