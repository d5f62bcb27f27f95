import { useMutation, useQueryClient } from "@tanstack/react-query";
import { remove } from "../../api/http";
import type { Model } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ButtonLink, Confirm, Dialog, useToast } from "../../ui";

/** Deletes a model's weights, which do not come back; while it is deployed, says what stands in the way. */
export function DeleteModel({ model, onClose }: { model: Model; onClose: () => void }) {
  const t = useText();
  if (model.deployments.length > 0) return <StillDeployed model={model} onClose={onClose} />;
  return <ReallyDelete model={model} onClose={onClose} title={t("models.delete_title")} />;
}

function StillDeployed({ model, onClose }: { model: Model; onClose: () => void }) {
  const t = useText();
  return (
    <Dialog
      title={t("models.delete_not")}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{t("common.close")}</Button>
          <ButtonLink to="/deployments" kind="primary" icon="deployments">
            {t("models.to_deployments")}
          </ButtonLink>
        </>
      }
    >
      <p className="said">{t("models.delete_deployed", { name: model.name, names: model.deployments.join(", ") })}</p>
    </Dialog>
  );
}

function ReallyDelete({ model, title, onClose }: { model: Model; title: string; onClose: () => void }) {
  const t = useText();
  const client = useQueryClient();
  const toast = useToast();
  const { name } = model;
  const deleting = useMutation({
    mutationFn: () => remove(`/v1/models/${encodeURIComponent(name)}`),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["models"] });
      toast({ message: t("models.deleted", { name }) });
      onClose();
    },
  });
  return (
    <Confirm
      title={title}
      deed={t("models.delete_deed")}
      busy={deleting.isPending}
      error={deleting.error}
      onConfirm={() => deleting.mutate()}
      onClose={onClose}
      text={<p className="said">{t("models.delete_text", { name })}</p>}
    />
  );
}
