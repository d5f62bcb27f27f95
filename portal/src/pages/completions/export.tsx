import { useMutation } from "@tanstack/react-query";
import { useId, useState } from "react";
import { open } from "../../api/http";
import { useText } from "../../i18n";
import { Button, Dialog, ErrorNote, Icon } from "../../ui";
import type { Target } from "./actions";
import styles from "./completions.module.css";
import { asked, COMPLETIONS } from "./filter";

const PATH = `${COMPLETIONS}/export`;
const FORMS = ["training", "full"] as const;
type Form = (typeof FORMS)[number];

/** The completions as a file of JSON lines: what a fine-tuning job reads, or all that is kept. */
export function ExportDialog({ target, onClose }: { target: Target; onClose: () => void }) {
  const t = useText();
  const group = useId();
  const [form, setForm] = useState<Form>("training");
  const download = useMutation({ mutationFn: (ids: string[]) => downloadIds(ids, form), onSuccess: onClose });
  return (
    <Dialog
      title={t("completions.export_title")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.cancel")}</Button>
          {"ids" in target ? (
            <Button
              kind="primary"
              icon="download"
              busy={download.isPending}
              onClick={() => download.mutate(target.ids)}
            >
              {t("common.download")}
            </Button>
          ) : (
            // The browser writes it to the disk as it comes, however long it is.
            <a
              className="button"
              data-kind="primary"
              href={asked(PATH, target.filter, { format: form })}
              download
              onClick={() => setTimeout(onClose)}
            >
              <Icon name="download" />
              {t("common.download")}
            </a>
          )}
        </>
      }
    >
      <fieldset className={styles.forms}>
        <legend className="unseen">{t("completions.export_form")}</legend>
        {FORMS.map((name) => (
          <label key={name} className={styles.form}>
            <input type="radio" name={group} checked={form === name} onChange={() => setForm(name)} />
            <span>
              <strong>{t(`completions.export_${name}`)}</strong>
              <span className="quiet small">{t(`completions.export_${name}_text`)}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {download.error && <ErrorNote error={download.error} />}
    </Dialog>
  );
}

async function downloadIds(ids: string[], format: Form): Promise<void> {
  const answer = await open(PATH, { ids, format });
  const file = URL.createObjectURL(await answer.blob());
  const link = document.createElement("a");
  link.href = file;
  link.download =
    /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? `completions-${format}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(file), 60_000);
}
