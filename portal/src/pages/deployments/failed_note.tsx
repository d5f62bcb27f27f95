import { useMutation, useQueryClient } from "@tanstack/react-query";
import type { Deployment } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note } from "../../ui";
import { deploy } from "./deploying";

/** Why a deployment does not answer, and a way to try it once more. */
export function FailedNote({ deployment }: { deployment: Deployment }) {
  const t = useText();
  const client = useQueryClient();
  const { name, model, error } = deployment;
  const again = useMutation({
    mutationFn: () => deploy(name, model),
    onSuccess: () => client.invalidateQueries({ queryKey: ["deployments"] }),
  });
  return (
    <>
      <Note
        tone="bad"
        action={
          <Button icon="refresh" busy={again.isPending} onClick={() => again.mutate()}>
            {t("deployments.deploy_again")}
          </Button>
        }
      >
        <span className="said">{error?.message ?? t("deployments.failed_unknown")}</span>
      </Note>
      {again.error && <ErrorNote error={again.error} />}
    </>
  );
}
