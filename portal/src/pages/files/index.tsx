import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get, path } from "../../api/http";
import type { List, StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { Button, Empty, ErrorNote, Page, Select, useAddress, Waiting } from "../../ui";
import { DeleteFile } from "./delete_file";
import { FilePreview } from "./file_preview";
import { FileTable } from "./file_table";
import { NoFiles } from "./no_files";
import { PURPOSES } from "./purposes";
import { Upload } from "./upload";

const PAGE = 50;
const LOOK_MS = 10_000;

/** What was uploaded and made: training files, eval data, results. */
export default function FilesPage() {
  const t = useText();
  const { address, set } = useAddress();
  const [leaving, setLeaving] = useState<StoredFile | null>(null);
  const purpose = PURPOSES.find((one) => one === address.get("purpose")) ?? "";
  const found = useFiles(purpose);
  const files = found.data?.pages.flatMap((page) => page.data) ?? [];
  const shown = address.get("open");
  const open = (id: string | null) => set({ open: id }, { asPlace: id !== null });

  return (
    <Page title={t("files.title")} text={t("files.text")}>
      <Upload />
      <div className="spread">
        <h2>{t("files.stored")}</h2>
        <Select
          bare
          label={t("files.purpose")}
          value={purpose}
          choices={[
            { value: "", label: t("files.all_purposes") },
            ...PURPOSES.map((value) => ({ value, label: t(`files.purpose_${value}`) })),
          ]}
          onChange={(event) => set({ purpose: event.target.value || null })}
        />
      </div>
      {found.error && <ErrorNote error={found.error} onRetry={() => found.refetch()} />}
      {found.isPending && !found.error && <Waiting />}
      {found.data && files.length === 0 && (purpose ? <Empty title={t("files.none_of_purpose")} /> : <NoFiles />)}
      {files.length > 0 && <FileTable files={files} onOpen={(file) => open(file.id)} onDelete={setLeaving} />}
      {found.hasNextPage && (
        <div>
          <Button busy={found.isFetchingNextPage} onClick={() => found.fetchNextPage()}>
            {t("common.show_more")}
          </Button>
        </div>
      )}
      {shown && <FilePreview id={shown} onClose={() => open(null)} />}
      {leaving && (
        <DeleteFile
          file={leaving}
          onClose={() => setLeaving(null)}
          onDeleted={() => shown === leaving.id && open(null)}
        />
      )}
    </Page>
  );
}

function useFiles(purpose: string) {
  return useInfiniteQuery({
    queryKey: ["files", "pages", purpose],
    queryFn: ({ pageParam, signal }) =>
      get<List<StoredFile>>(path("/v1/files", { limit: PAGE, purpose, after: pageParam }), signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => (page.has_more ? (page.data.at(-1)?.id ?? null) : null),
    // A first page alone is looked at again: results and selections appear by themselves.
    refetchInterval: ({ state }) => ((state.data?.pages.length ?? 0) > 1 ? false : LOOK_MS),
  });
}
