import { useMutation, useQueryClient } from "@tanstack/react-query";
import { remove } from "../../api/http";
import type { StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { Confirm, useToast } from "../../ui";

interface DeleteFileProps {
  file: StoredFile;
  onClose: () => void;
  onDeleted: () => void;
}

export function DeleteFile({ file, onClose, onDeleted }: DeleteFileProps) {
  const t = useText();
  const client = useQueryClient();
  const toast = useToast();
  const deleting = useMutation({
    mutationFn: () => remove(`/v1/files/${encodeURIComponent(file.id)}`),
    onSuccess: async () => {
      onDeleted();
      await client.invalidateQueries({ queryKey: ["files"] });
      toast({ message: t("files.deleted", { name: file.filename }) });
      onClose();
    },
  });
  return (
    <Confirm
      title={t("files.delete_title")}
      deed={t("files.delete_deed")}
      busy={deleting.isPending}
      error={deleting.error}
      onConfirm={() => deleting.mutate()}
      onClose={onClose}
      text={<p className="said">{t("files.delete_text", { name: file.filename })}</p>}
    />
  );
}
