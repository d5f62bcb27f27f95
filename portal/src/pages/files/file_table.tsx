import { contentOf } from "../../api/files";
import type { StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, ButtonLink, type Column, Icon, IconButton, Table, useFormat, When } from "../../ui";
import styles from "./files.module.css";
import { isPurpose } from "./purposes";

interface FileTableProps {
  files: StoredFile[];
  onOpen: (file: StoredFile) => void;
  onDelete: (file: StoredFile) => void;
}

export function FileTable({ files, onOpen, onDelete }: FileTableProps) {
  const t = useText();
  const { bytes } = useFormat();
  const columns: Column<StoredFile>[] = [
    { key: "name", header: t("files.name"), wide: true, cell: (file) => <Name file={file} onOpen={onOpen} /> },
    { key: "purpose", header: t("files.purpose"), cell: ({ purpose }) => <PurposeBadge purpose={purpose} /> },
    { key: "size", header: t("files.size"), align: "end", cell: (file) => bytes(file.bytes) },
    {
      key: "created",
      header: t("files.created"),
      cell: ({ created_at }) => <When seconds={created_at} />,
    },
    {
      key: "actions",
      header: t("files.actions"),
      wide: true,
      align: "end",
      cell: (file) => <Actions file={file} onDelete={() => onDelete(file)} />,
    },
  ];
  return <Table label={t("files.stored")} columns={columns} rows={files} rowKey={(file) => file.id} />;
}

/** The name opens the file's first lines; what is wrong with the file is said below it. */
function Name({ file, onOpen }: { file: StoredFile; onOpen: (file: StoredFile) => void }) {
  return (
    <div className={styles.name}>
      <button type="button" className={`said ${styles.open}`} onClick={() => onOpen(file)}>
        {file.filename}
      </button>
      <span className="mono quiet small said">{file.id}</span>
      {file.status === "error" && file.status_details && (
        <span className={`small said ${styles.wrong}`}>
          <Icon name="warn" /> {file.status_details}
        </span>
      )}
    </div>
  );
}

export function PurposeBadge({ purpose }: { purpose: string }) {
  const t = useText();
  return <Badge>{isPurpose(purpose) ? t(`files.purpose_${purpose}`) : purpose}</Badge>;
}

function Actions({ file, onDelete }: { file: StoredFile; onDelete: () => void }) {
  const t = useText();
  const of = <span className="unseen"> {file.filename}</span>;
  return (
    <div className={styles.actions}>
      {file.purpose === "fine-tune" && file.status !== "error" && (
        <ButtonLink to={`/distill?file=${encodeURIComponent(file.id)}`} icon="distill">
          <span>
            {t("files.distill")}
            {of}
          </span>
        </ButtonLink>
      )}
      <DownloadLink file={file} />
      <IconButton icon="trash" label={t("files.delete_name", { name: file.filename })} onClick={onDelete} />
    </div>
  );
}

/** A plain link: the browser saves the file as it comes, however large. */
export function DownloadLink({ file }: { file: StoredFile }) {
  const t = useText();
  return (
    <a className="button" data-kind="plain" href={contentOf(file.id)} download={file.filename}>
      <Icon name="download" />
      <span>
        {t("common.download")}
        <span className="unseen"> {file.filename}</span>
      </span>
    </a>
  );
}
