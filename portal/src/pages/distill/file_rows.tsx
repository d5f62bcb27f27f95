// A training file that is there already, or one that is uploaded now.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { store } from "../../api/files";
import type { StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Select, useFormat, Waiting } from "../../ui";
import { useTrainingFiles } from "./asking";
import styles from "./distill.module.css";
import { PairsOffer } from "./pairs_offer";
import type { StepProps } from "./step";

export function FileRows({ file, set }: { file: string } & Pick<StepProps, "set">) {
  const t = useText();
  const files = useTrainingFiles();
  const choices = useFileChoices(files.data?.data ?? [], file);
  if (files.isPending) return <Waiting />;
  return (
    <>
      {files.error && !files.data && <ErrorNote error={files.error} onRetry={files.refetch} />}
      <div className={styles.fileChoice}>
        <Select
          label={t("distill.file")}
          hint={t("distill.file_hint")}
          choices={[{ value: "", label: t("distill.file_none") }, ...choices]}
          value={file}
          onChange={(event) => set({ file: event.target.value })}
        />
        <Upload onDone={(uploaded) => set({ file: uploaded.id })} />
      </div>
      <PairsOffer set={set} />
    </>
  );
}

/** The files to choose among, with the one that the address names, whatever it is. */
export function useFileChoices(files: StoredFile[], named: string) {
  const { bytes, day } = useFormat();
  const known = files.map((file) => ({
    value: file.id,
    label: `${file.filename} · ${bytes(file.bytes)} · ${day(file.created_at)}`,
  }));
  const unlisted = named && !files.some((file) => file.id === named) ? [{ value: named, label: named }] : [];
  return [...unlisted, ...known];
}

function Upload({ onDone }: { onDone: (file: StoredFile) => void }) {
  const t = useText();
  const client = useQueryClient();
  const input = useRef<HTMLInputElement>(null);
  const sending = useMutation({
    mutationFn: (file: File) => store(file, "fine-tune"),
    onSuccess: (file) => {
      client.invalidateQueries({ queryKey: ["files"] });
      onDone(file);
    },
  });
  return (
    <div className="stack">
      <div>
        <Button icon="upload" busy={sending.isPending} onClick={() => input.current?.click()}>
          {t("distill.upload")}
        </Button>
        <input
          ref={input}
          type="file"
          accept=".jsonl,application/jsonl,text/plain"
          hidden
          aria-label={t("distill.upload")}
          onChange={(event) => {
            const file = event.target.files?.[0];
            if (file) sending.mutate(file);
            event.target.value = "";
          }}
        />
      </div>
      {sending.error && <ErrorNote error={sending.error} />}
    </div>
  );
}
