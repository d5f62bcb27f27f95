import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import type { Metadata } from "../../../api/types";
import { useText } from "../../../i18n";
import { Button, ErrorNote, IconButton, TextInput, useToast } from "../../../ui";
import { changeMetadata } from "../actions";
import styles from "./panel.module.css";

const MOST_PAIRS = 16;

interface Pair {
  number: number;
  key: string;
  value: string;
}

/** A completion's pairs, and their change. */
export function MetadataEditor({ id, metadata }: { id: string; metadata: Metadata }) {
  const t = useText();
  const [editing, setEditing] = useState(false);
  const pairs = Object.entries(metadata);
  return (
    <section className={styles.metadata} aria-label={t("completions.metadata")}>
      <div className="spread">
        <h3>{t("completions.metadata")}</h3>
        {!editing && <Button onClick={() => setEditing(true)}>{t("completions.edit")}</Button>}
      </div>
      {editing ? (
        <Editor id={id} metadata={metadata} onClose={() => setEditing(false)} />
      ) : pairs.length ? (
        <dl className={styles.pairs}>
          {pairs.map(([key, value]) => (
            <div key={key} className={styles.pair}>
              <dt className="said">{key}</dt>
              <dd className="said">{value}</dd>
            </div>
          ))}
        </dl>
      ) : (
        <p className="quiet small">{t("completions.no_metadata")}</p>
      )}
    </section>
  );
}

function Editor({ id, metadata, onClose }: { id: string; metadata: Metadata; onClose: () => void }) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const [pairs, setPairs] = useState<Pair[]>(() =>
    Object.entries(metadata).map(([key, value], number) => ({ number, key, value })),
  );
  const saving = useMutation({
    mutationFn: (changes: Record<string, string | null>) => changeMetadata(id, changes),
    onSuccess: () => {
      toast({ message: t("completions.metadata_saved") });
      onClose();
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["completions"] }),
  });
  const change = (number: number, part: Partial<Pair>) =>
    setPairs((all) => all.map((pair) => (pair.number === number ? { ...pair, ...part } : pair)));
  const save = (event: FormEvent) => {
    event.preventDefault();
    if (saving.isPending) return;
    const changes = changesOf(metadata, pairs);
    if (Object.keys(changes).length) saving.mutate(changes);
    else onClose();
  };
  return (
    <form className="stack" onSubmit={save}>
      <ul className={styles.edited}>
        {pairs.map(({ number, key, value }) => (
          <li key={number} className={styles.editedPair}>
            <TextInput
              bare
              label={t("completions.key")}
              placeholder={t("completions.key")}
              maxLength={64}
              value={key}
              onChange={(event) => change(number, { key: event.target.value })}
            />
            <TextInput
              bare
              label={t("completions.value_of", { key })}
              placeholder={t("completions.value")}
              maxLength={512}
              value={value}
              onChange={(event) => change(number, { value: event.target.value })}
            />
            <IconButton
              icon="trash"
              label={t("completions.remove_pair", { key })}
              onClick={() => setPairs((all) => all.filter((pair) => pair.number !== number))}
            />
          </li>
        ))}
      </ul>
      {saving.error && <ErrorNote error={saving.error} />}
      <div className="row">
        <Button
          icon="plus"
          disabled={pairs.length >= MOST_PAIRS}
          onClick={() => setPairs((all) => [...all, { number: next(all), key: "", value: "" }])}
        >
          {t("completions.add_pair")}
        </Button>
        <Button type="submit" kind="primary" busy={saving.isPending}>
          {t("common.save")}
        </Button>
        <Button onClick={onClose}>{t("common.cancel")}</Button>
      </div>
      <p className="quiet small">{t("completions.tag_limits", { keys: MOST_PAIRS, key: 64, value: 512 })}</p>
    </form>
  );
}

function next(pairs: Pair[]): number {
  return Math.max(-1, ...pairs.map((pair) => pair.number)) + 1;
}

/** What differs from the metadata as it was; null for a key that is gone. */
function changesOf(before: Metadata, pairs: Pair[]): Record<string, string | null> {
  const after = Object.fromEntries(pairs.filter(({ key }) => key.trim()).map(({ key, value }) => [key.trim(), value]));
  const gone = Object.keys(before).filter((key) => !Object.hasOwn(after, key));
  const changed = Object.entries(after).filter(([key, value]) => before[key] !== value);
  return { ...Object.fromEntries(gone.map((key) => [key, null])), ...Object.fromEntries(changed) };
}
