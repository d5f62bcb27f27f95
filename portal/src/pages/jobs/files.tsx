// The files of a job, each with its download: the cookie lets the browser fetch them like any link.

import { useQuery } from "@tanstack/react-query";
import { contentOf } from "../../api/files";
import { ApiError, get } from "../../api/http";
import type { FineTuningJob, StoredFile } from "../../api/types";
import { type TextKey, useText } from "../../i18n";
import { Icon, useFormat } from "../../ui";
import styles from "./jobs.module.css";

export function Files({ job }: { job: FineTuningJob }) {
  const t = useText();
  const files: [TextKey, string][] = [
    ["jobs.training_file", job.training_file],
    ...(job.validation_file ? ([["jobs.validation_file", job.validation_file]] as [TextKey, string][]) : []),
    ...job.result_files.map((id): [TextKey, string] => ["jobs.result_file", id]),
  ];
  return (
    <section className="card stack" aria-labelledby="files">
      <h2 id="files">{t("files.title")}</h2>
      <ul className={styles.files}>
        {files.map(([kind, id]) => (
          <File key={id} kind={t(kind)} id={id} />
        ))}
      </ul>
    </section>
  );
}

function File({ kind, id }: { kind: string; id: string }) {
  const t = useText();
  const { bytes } = useFormat();
  const where = `/v1/files/${encodeURIComponent(id)}`;
  const file = useQuery({ queryKey: ["files", id], queryFn: ({ signal }) => get<StoredFile>(where, signal) });
  const isGone = file.error instanceof ApiError && file.error.status === 404;
  return (
    <li className={styles.model}>
      <span className={styles.name}>
        <strong>{kind}</strong>
        <span className="small quiet said">
          {isGone ? t("jobs.file_gone") : file.data ? `${file.data.filename} · ${bytes(file.data.bytes)}` : id}
        </span>
      </span>
      {!isGone && (
        <a
          className="button"
          href={contentOf(id)}
          download={file.data?.filename ?? id}
          aria-label={t("jobs.download", { name: kind })}
        >
          <Icon name="download" />
          {t("common.download")}
        </a>
      )}
    </li>
  );
}
