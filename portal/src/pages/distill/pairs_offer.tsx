// A file of what people chose in the playground: pairs of a better and a worse answer, made when there are enough.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { post } from "../../api/http";
import type { Preferences } from "../../api/types";
import { useText } from "../../i18n";
import { Button, ErrorNote, Note } from "../../ui";
import { MINIMUM } from "./choices";
import type { StepProps } from "./step";

const PREFERENCES = "/v1/stillroom/preferences";

export function PairsOffer({ set }: Pick<StepProps, "set">) {
  const t = useText();
  const client = useQueryClient();
  const found = useQuery({
    queryKey: ["preferences"],
    queryFn: () => post<Preferences>(PREFERENCES, { dry_run: true }),
  });
  const making = useMutation({
    mutationFn: () => post<Preferences>(PREFERENCES),
    onSuccess: ({ training_file: file }) => {
      client.invalidateQueries({ queryKey: ["files"] });
      if (file) set({ file: file.id });
    },
  });
  const count = found.data?.pairs ?? 0;
  if (count === 0) return null;
  return (
    <>
      <Note
        action={
          <Button busy={making.isPending} disabled={count < MINIMUM} onClick={() => making.mutate()}>
            {t("distill.make_pairs")}
          </Button>
        }
      >
        {t("distill.pairs_found", { count })} {count < MINIMUM && t("distill.pairs_lacking", { minimum: MINIMUM })}
      </Note>
      {making.error && <ErrorNote error={making.error} />}
    </>
  );
}
