import { useMutation, useQueryClient } from "@tanstack/react-query";
import { remove } from "../../api/http";
import type { Deployment } from "../../api/types";
import { useText } from "../../i18n";
import { Confirm, useToast } from "../../ui";
import { addressOf } from "./deploying";

/** Asks first: the model stays, but who calls the name gets an error from now on. */
export function DeleteDeployment({ deployment, onClose }: { deployment: Deployment; onClose: () => void }) {
  const t = useText();
  const client = useQueryClient();
  const toast = useToast();
  const { name, model } = deployment;
  const deleting = useMutation({
    mutationFn: () => remove(addressOf(name)),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["deployments"] });
      client.invalidateQueries({ queryKey: ["models"] });
      toast({ message: t("deployments.deleted", { name }) });
      onClose();
    },
  });
  return (
    <Confirm
      title={t("deployments.delete_title", { name })}
      deed={t("deployments.delete_deed")}
      busy={deleting.isPending}
      error={deleting.error}
      onConfirm={() => deleting.mutate()}
      onClose={onClose}
      text={
        <div className="stack">
          <p className="said">{t("deployments.delete_stays", { model })}</p>
          <p className="said">{t("deployments.delete_callers", { name })}</p>
        </div>
      }
    />
  );
}
