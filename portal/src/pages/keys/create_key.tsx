import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useId, useState } from "react";
import { post } from "../../api/http";
import type { ApiKey } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Dialog, ErrorNote, Note, Snippet, TextInput } from "../../ui";
import { exports, KEYS, LONGEST_NAME } from "./key";
import styles from "./keys.module.css";

/** Asks for a name, then shows the new key's secret: here and nowhere else. */
export function CreateKey({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const creating = useMutation({
    mutationFn: (name: string) => post<ApiKey>(KEYS, { name }),
    onSuccess: () => client.invalidateQueries({ queryKey: ["keys"] }),
  });
  if (creating.data) return <Secret made={creating.data} onClose={onClose} />;
  return (
    <NameDialog
      busy={creating.isPending}
      error={creating.error}
      onName={(name) => creating.mutate(name)}
      onClose={onClose}
    />
  );
}

interface NameProps {
  busy: boolean;
  error: unknown;
  onName: (name: string) => void;
  onClose: () => void;
}

function NameDialog({ busy, error, onName, onClose }: NameProps) {
  const t = useText();
  const form = useId();
  const [name, setName] = useState("");
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (name.trim() && !busy) onName(name.trim());
  };
  return (
    <Dialog
      title={t("keys.create_title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          <Button kind="primary" type="submit" form={form} busy={busy} disabled={!name.trim()}>
            {t("keys.create")}
          </Button>
        </>
      }
    >
      <form id={form} className="stack" onSubmit={submit}>
        <TextInput
          label={t("keys.name")}
          hint={t("keys.name_hint")}
          value={name}
          maxLength={LONGEST_NAME}
          onChange={(event) => setName(event.target.value)}
          autoFocus
        />
        {error != null && <ErrorNote error={error} />}
      </form>
    </Dialog>
  );
}

function Secret({ made, onClose }: { made: ApiKey; onClose: () => void }) {
  const t = useText();
  const secret = made.key ?? "";
  return (
    <Dialog
      title={t("keys.made_title", { name: made.name })}
      onClose={onClose}
      stays
      actions={
        <Button kind="primary" onClick={onClose}>
          {t("keys.made_done")}
        </Button>
      }
    >
      <Note tone="warn">{t("keys.made_once")}</Note>
      <div className={`stack ${styles.whole}`}>
        <Snippet label={t("keys.secret")} code={secret} />
        <p className="quiet">{t("keys.made_use")}</p>
        <Snippet label={t("keys.exports")} code={exports(secret)} />
      </div>
    </Dialog>
  );
}
