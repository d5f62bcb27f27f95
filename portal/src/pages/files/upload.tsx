import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type DragEvent, useRef, useState } from "react";
import { store } from "../../api/files";
import { ApiError } from "../../api/http";
import { useText } from "../../i18n";
import { Button, IconButton, Note, Select, useErrorText, useFormat, useToast } from "../../ui";
import { MINIMUM } from "../distill/choices";
import styles from "./files.module.css";
import { UPLOADED, type UploadPurpose } from "./purposes";

const LOOKED_AT_BYTES = 8_000_000;

/** One of: why a file was refused, what is wrong in it, or how few rows it has. */
interface Problem {
  id: number;
  name: string;
  refusal?: string;
  details?: string;
  rows?: number;
}

/** Takes files by dropping or choosing, for the purpose that was chosen before. */
export function Upload() {
  const t = useText();
  const input = useRef<HTMLInputElement>(null);
  const [purpose, setPurpose] = useState<UploadPurpose>("fine-tune");
  const { drop, isOver } = useDrop((files) => uploading.mutate(files));
  const { uploading, problems, dismiss } = useUpload(purpose);
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
      {problems.map((problem) => (
        <ProblemNote key={problem.id} problem={problem} onDismiss={() => dismiss(problem.id)} />
      ))}
    </section>
  );
}

/** What is wrong with a file. It stays until it was read: others may be uploaded meanwhile. */
function ProblemNote({ problem, onDismiss }: { problem: Problem; onDismiss: () => void }) {
  const t = useText();
  const { name, refusal, details, rows } = problem;
  return (
    <Note tone="bad" action={<IconButton icon="close" label={t("common.dismiss")} onClick={onDismiss} />}>
      {refusal !== undefined && (
        <>
          <p className="said">{t("files.refused", { name })}</p>
          <p className="said">{refusal}</p>
        </>
      )}
      {details !== undefined && (
        <>
          <p className="said">{t("files.broken", { name })}</p>
          <p className="said mono">{details}</p>
          <p className="small">{t("files.broken_what_next")}</p>
        </>
      )}
      {rows !== undefined && (
        <p className="said">
          {rows === 0 ? t("files.is_empty", { name }) : t("files.too_few", { name, count: rows, minimum: MINIMUM })}
        </p>
      )}
    </Note>
  );
}

/** One after the other; what is wrong with one does not keep the others away. */
function useUpload(purpose: UploadPurpose) {
  const told = useErrorText();
  const t = useText();
  const client = useQueryClient();
  const toast = useToast();
  const { bytes } = useFormat();
  const [problems, setProblems] = useState<Problem[]>([]);
  const next = useRef(1);
  const note = (problem: Omit<Problem, "id">) =>
    setProblems((before) => [...before, { id: next.current++, ...problem }]);
  const one = async (file: File) => {
    try {
      const stored = await store(file, purpose);
      const rows = purpose === "fine-tune" ? await fewRows(file) : null;
      if (stored.status === "error") note({ name: file.name, details: stored.status_details ?? "" });
      else toast({ message: t("files.uploaded", { name: stored.filename, size: bytes(stored.bytes) }) });
      if (stored.status !== "error" && rows !== null) note({ name: file.name, rows });
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) throw error;
      note({ name: file.name, refusal: told(error) });
    }
  };
  const uploading = useMutation({
    mutationFn: async (files: File[]) => {
      for (const file of files) await one(file);
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["files"] }),
  });
  const dismiss = (id: number) => setProblems((before) => before.filter((problem) => problem.id !== id));
  return { uploading, problems, dismiss };
}

/** How many rows a file has that has too few for a job; null for one that has enough. */
async function fewRows(file: File): Promise<number | null> {
  if (file.size > LOOKED_AT_BYTES) return null;
  const rows = (await file.text()).split("\n").filter((line) => line.trim()).length;
  return rows < MINIMUM ? rows : null;
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
