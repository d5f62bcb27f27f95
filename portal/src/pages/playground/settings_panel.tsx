import { type Dispatch, type SetStateAction, useRef } from "react";
import { useText } from "../../i18n";
import { Button, Check, IconButton, TextArea, TextInput } from "../../ui";
import type { Chosen } from "./conversation";
import styles from "./playground.module.css";
import { isWrong, LIMITS, NUMBER_FIELDS, type NumberField, type Settings, stopsOf } from "./settings";
import { SystemPrompt } from "./system_prompt";

interface SettingsPanelProps {
  settings: Settings;
  onChange: Dispatch<SetStateAction<Settings>>;
  chosen: Chosen;
}

/** What a question is asked with. An empty field leaves the choice to the model. */
export function SettingsPanel({ settings, onChange, chosen }: SettingsPanelProps) {
  const t = useText();
  const set = (change: Partial<Settings>) => onChange((before) => ({ ...before, ...change }));
  const stops = stopsOf(settings.stop).length;
  return (
    <section className={styles.settings} id="settings" aria-label={t("playground.settings")}>
      <SystemPrompt
        models={[chosen.left, chosen.right]}
        value={settings.system}
        onChange={(system) => set({ system })}
      />
      <div className={styles.numbers}>
        {NUMBER_FIELDS.map((field) => (
          <NumberInput
            key={field}
            field={field}
            value={settings[field]}
            onChange={(value) => set({ [field]: value } as Partial<Settings>)}
          />
        ))}
      </div>
      <TextArea
        label={t("playground.stop_texts")}
        hint={t("playground.stop_texts_hint")}
        error={stops > 4 ? t("playground.stop_texts_many") : null}
        rows={2}
        value={settings.stop}
        onChange={(event) => set({ stop: event.target.value })}
      />
      <Storing settings={settings} set={set} />
    </section>
  );
}

function NumberInput(props: { field: NumberField; value: string; onChange: (value: string) => void }) {
  const t = useText();
  const { field, value, onChange } = props;
  const { min, max, whole } = LIMITS[field];
  const problem = field === "seed" ? t("playground.not_whole") : t("playground.not_between", { min, max });
  return (
    <TextInput
      label={t(`playground.setting_${field}`)}
      error={isWrong(field, value) ? problem : null}
      inputMode={whole ? "numeric" : "decimal"}
      placeholder={t("playground.default")}
      value={value}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}

/** Whether the conversation is kept, and the metadata that it is found by. */
function Storing({ settings, set }: { settings: Settings; set: (change: Partial<Settings>) => void }) {
  const t = useText();
  const next = useRef(1);
  const { store, metadata } = settings;
  const change = (id: number, part: { key?: string; value?: string }) =>
    set({ metadata: metadata.map((pair) => (pair.id === id ? { ...pair, ...part } : pair)) });
  return (
    <fieldset className={styles.storing}>
      <legend className="unseen">{t("playground.store")}</legend>
      <Check
        role="switch"
        label={t("playground.store")}
        checked={store}
        onChange={(event) => set({ store: event.target.checked })}
      />
      <p className="field-hint">{t("playground.store_hint")}</p>
      {store && (
        <>
          {metadata.map((pair, at) => (
            <div key={pair.id} className={styles.pair}>
              <TextInput
                bare
                label={t("playground.metadata_key", { number: at + 1 })}
                placeholder={t("playground.key")}
                maxLength={64}
                value={pair.key}
                onChange={(event) => change(pair.id, { key: event.target.value })}
              />
              <TextInput
                bare
                label={t("playground.metadata_value", { number: at + 1 })}
                placeholder={t("playground.value")}
                maxLength={512}
                value={pair.value}
                onChange={(event) => change(pair.id, { value: event.target.value })}
              />
              <IconButton
                icon="close"
                label={t("playground.metadata_remove", { number: at + 1 })}
                onClick={() => set({ metadata: metadata.filter((one) => one.id !== pair.id) })}
              />
            </div>
          ))}
          <div>
            <Button
              icon="plus"
              disabled={metadata.length >= 16}
              onClick={() => set({ metadata: [...metadata, { id: next.current++, key: "", value: "" }] })}
            >
              {t("playground.metadata_add")}
            </Button>
          </div>
        </>
      )}
    </fieldset>
  );
}
