import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type DragEvent, useRef, useState } from "react";
import { store } from "../../api/files";
import type { StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note, Select, useFormat, useToast } from "../../ui";
import styles from "./files.module.css";
import { UPLOADED, type UploadPurpose } from "./purposes";

/** Takes files by dropping or choosing, for the purpose that was chosen before. */
export function Upload() {
  const t = useText();
  const input = useRef<HTMLInputElement>(null);
  const [purpose, setPurpose] = useState<UploadPurpose>("fine-tune");
  const { drop, isOver } = useDrop((files) => uploading.mutate(files));
  const uploading = useUpload(purpose);
  const broken = uploading.data?.filter((file) => file.status === "error") ?? [];
  return (
    <section className={styles.upload} aria-label={t("files.upload")}>
      <div className={styles.drop} data-over={isOver} {...drop}>
        <p className={styles.dropText}>
          <strong>{t("files.drop")}</strong>
          <span className="small quiet">{t(`files.about_${purpose}`)}</span>
        </p>
        <div className={styles.choosing}>
          <Select
            label={t("files.upload_purpose")}
            value={purpose}
            choices={UPLOADED.map((value) => ({ value, label: t(`files.purpose_${value}`) }))}
            onChange={(event) => setPurpose(event.target.value as UploadPurpose)}
          />
          <Button kind="primary" icon="upload" busy={uploading.isPending} onClick={() => input.current?.click()}>
            {uploading.isPending ? t("files.uploading") : t("files.choose")}
          </Button>
          <input
            ref={input}
            type="file"
            multiple
            hidden
            onChange={(event) => {
              const chosen = [...(event.target.files ?? [])];
              event.target.value = "";
              if (chosen.length) uploading.mutate(chosen);
            }}
          />
        </div>
      </div>
      {uploading.error && <ErrorNote error={uploading.error} />}
      {broken.map((file) => (
        <BrokenFile key={file.id} file={file} />
      ))}
    </section>
  );
}

/** The file is stored, but a job would refuse it: the server names the line. */
function BrokenFile({ file }: { file: StoredFile }) {
  const t = useText();
  return (
    <Note tone="bad">
      <p className="said">{t("files.broken", { name: file.filename })}</p>
      <p className="said mono">{file.status_details}</p>
      <p className="small">{t("files.broken_what_next")}</p>
    </Note>
  );
}

/** One after the other; those before one that fails are there. */
function useUpload(purpose: UploadPurpose) {
  const t = useText();
  const client = useQueryClient();
  const toast = useToast();
  const { bytes } = useFormat();
  return useMutation({
    mutationFn: async (files: File[]) => {
      const stored: StoredFile[] = [];
      for (const file of files) stored.push(await store(file, purpose));
      return stored;
    },
    onSuccess: (stored) => {
      for (const file of stored.filter((one) => one.status !== "error"))
        toast({ message: t("files.uploaded", { name: file.filename, size: bytes(file.bytes) }) });
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["files"] }),
  });
}

function useDrop(take: (files: File[]) => void) {
  const [isOver, setIsOver] = useState(false);
  const hold = (event: DragEvent) => {
    event.preventDefault();
    setIsOver(true);
  };
  return {
    isOver,
    drop: {
      onDragEnter: hold,
      onDragOver: hold,
      onDragLeave: () => setIsOver(false),
      onDrop: (event: DragEvent) => {
        event.preventDefault();
        setIsOver(false);
        const files = [...event.dataTransfer.files];
        if (files.length) take(files);
      },
    },
  };
}
