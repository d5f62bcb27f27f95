import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { useText } from "../../i18n";
import { Button, Dialog, ErrorNote, Icon, TextInput } from "../../ui";
import styles from "./completions.module.css";

const KEY_LETTERS = 64;
const VALUE_LETTERS = 512;

interface TagDialogProps {
  size: string;
  onTag: (metadata: Record<string, string | null>) => Promise<void>;
  onClose: () => void;
}

interface Change {
  number: number;
  key: string;
  value: string;
  /** Take the key away instead. */
  removes: boolean;
}

/** Pairs to add to many completions, and keys to take away from them. */
export function TagDialog({ size, onTag, onClose }: TagDialogProps) {
  const t = useText();
  const [changes, setChanges] = useState<Change[]>([blank(1, false)]);
  const tagging = useMutation({ mutationFn: onTag, onSuccess: onClose });
  const change = (number: number, part: Partial<Change>) =>
    setChanges((all) => all.map((one) => (one.number === number ? { ...one, ...part } : one)));
  const add = (removes: boolean) =>
    setChanges((all) => [...all, blank(Math.max(0, ...all.map((one) => one.number)) + 1, removes)]);
  const drop = (number: number) => setChanges((all) => all.filter((one) => one.number !== number));
  const given = changes.filter((one) => one.key.trim());
  return (
    <Dialog
      title={t("completions.tag_title", { size })}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button
            kind="primary"
            busy={tagging.isPending}
            disabled={!given.length}
            onClick={() => tagging.mutate(Object.fromEntries(given.map(pairOf)))}
          >
            {t("completions.tag_apply")}
          </Button>
        </>
      }
    >
      <p className="quiet">{t("completions.tag_limits", { keys: 16, key: KEY_LETTERS, value: VALUE_LETTERS })}</p>
      <ul className={styles.changes}>
        {changes.map((one) => (
          <li key={one.number} className={styles.change}>
            <TextInput
              label={one.removes ? t("completions.key_to_remove") : t("completions.key")}
              maxLength={KEY_LETTERS}
              value={one.key}
              onChange={(event) => change(one.number, { key: event.target.value })}
            />
            {!one.removes && (
              <TextInput
                label={t("completions.value")}
                maxLength={VALUE_LETTERS}
                value={one.value}
                onChange={(event) => change(one.number, { value: event.target.value })}
              />
            )}
            <button
              type="button"
              className="button"
              data-kind="ghost"
              data-icon=""
              aria-label={t("completions.drop_change")}
              onClick={() => drop(one.number)}
            >
              <Icon name="close" />
            </button>
          </li>
        ))}
      </ul>
      <div className="row">
        <Button icon="plus" onClick={() => add(false)}>
          {t("completions.add_pair")}
        </Button>
        <Button icon="trash" onClick={() => add(true)}>
          {t("completions.remove_key")}
        </Button>
      </div>
      {tagging.error && <ErrorNote error={tagging.error} />}
    </Dialog>
  );
}

function blank(number: number, removes: boolean): Change {
  return { number, key: "", value: "", removes };
}

function pairOf({ key, value, removes }: Change): [string, string | null] {
  return [key.trim(), removes ? null : value];
}
