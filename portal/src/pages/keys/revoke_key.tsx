import { useMutation, useQueryClient } from "@tanstack/react-query";
import { remove } from "../../api/http";
import { useSession } from "../../api/session";
import type { ApiKey } from "../../api/types";
import { useText } from "../../i18n";
import { Confirm, Note, useToast } from "../../ui";
import { KEYS } from "./key";

export function RevokeKey({ apiKey, onClose }: { apiKey: ApiKey; onClose: () => void }) {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const mine = useSession().data?.key_id === apiKey.id;
  const revoking = useMutation({
    mutationFn: () => remove(`${KEYS}/${encodeURIComponent(apiKey.id)}`),
    onSuccess: async () => {
      toast({ message: t("keys.was_revoked", { name: apiKey.name }) });
      onClose();
      // The session of this very key has ended with it, which the next answer says.
      await client.invalidateQueries({ queryKey: mine ? ["session"] : ["keys"] });
    },
  });
  return (
    <Confirm
      title={t("keys.revoke_title", { name: apiKey.name })}
      deed={t("keys.revoke_deed")}
      busy={revoking.isPending}
      error={revoking.error}
      onConfirm={() => revoking.mutate()}
      onClose={onClose}
      text={
        <div className="stack">
          {mine && <Note tone="warn">{t("keys.revoke_yours")}</Note>}
          <p>{t("keys.revoke_text", { shown: apiKey.shown })}</p>
        </div>
      }
    />
  );
}
