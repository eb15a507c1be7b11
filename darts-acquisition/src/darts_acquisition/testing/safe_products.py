"""Sentinel-2 SAFE products in small: the folders, names, metadata and lossless JPEG 2000 of the real ones."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

PRODUCT = "S2B_MSIL2A_20240719T204019_N0511_R014_T08WMA_20240719T233015"
BANDS = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}
"""What is written unless asked otherwise: those that are not resampled, and some that are."""


@dataclass(frozen=True, kw_only=True)
class SafeLook:
    """How a product shall look; the defaults are those of processing baseline 05.11."""

    name: str = PRODUCT
    level: str = "2A"
    side: int = 252
    """Pixels of 10 m along each side; whole multiples of 6 have whole pixels of 60 m."""
    block: int = 64
    """Side of a JPEG 2000 tile, so that small images have several."""
    quantification: int = 10000
    offsets: Mapping[int, int] | None = field(default_factory=lambda: dict.fromkeys(range(13), -1000))
    """By band_id; None: no list, as before processing baseline 04.00."""
    baseline: str = "05.11"
    start: str = "2024-07-19T20:40:19.024Z"
    sun: tuple[str, str] | None = ("49.7123456789", "177.987654321")
    """Zenith and azimuth as text."""
    epsg: int = 32608
    corner: tuple[int, int] = (399960, 7600020)
    checksum: str = "SHA3-256"
    """SHA3-256, MD5, or "" for a product without manifest."""
    older_names: bool = False
    """The element and file names of processing baselines 02.04 to 02.06."""
    bands: Mapping[int, Sequence[str]] = field(default_factory=lambda: BANDS)

    @property
    def tile(self) -> str:
        """The MGRS tile with its T."""
        return self.name.split("_")[5]

    @property
    def granule(self) -> str:
        """Folder of the tile below the product."""
        return f"GRANULE/L{self.level}_{self.tile}_A038494_20240719T204018"

    def image(self, band: str, resolution: int) -> str:
        """Return the path of a band below the product."""
        start = self.name.split("_")[2]
        older = "L2A_" if self.older_names else ""
        return f"{self.granule}/IMG_DATA/R{resolution}m/{older}{self.tile}_{start}_{band}_{resolution}m.jp2"


def write_safe(folder: Path, look: SafeLook | None = None, *, seed: int = 0) -> Path:
    """Write a product below `folder` and return its folder."""
    look = look or SafeLook()
    product = folder / f"{look.name}.SAFE"
    rng = np.random.default_rng(seed)
    for resolution, names in look.bands.items():
        for name in names:
            side = -(-look.side * 10 // resolution)
            dn = rng.integers(1, 9000, (side, side)).astype("uint16")
            dn[:, : side // 8] = 0  # beyond the swath
            dn[rng.random(dn.shape) < 0.01] = 0
            write_image(product / look.image(name, resolution), dn, resolution, look)
    side = -(-look.side // 2)
    classes = rng.integers(0, 12, (side, side)).astype("uint8")
    write_image(product / look.image("SCL", 20), classes, 20, look)
    (product / f"MTD_MSIL{look.level}.xml").write_text(product_xml(look), encoding="utf-8")
    (product / look.granule / "MTD_TL.xml").write_text(tile_xml(look), encoding="utf-8")
    (product / "INSPIRE.xml").write_text("<any/>", encoding="utf-8")
    if look.checksum:
        write_manifest(product, look.checksum)
    return product


def write_image(path: Path, values: np.ndarray, resolution: int, look: SafeLook) -> None:
    """Write one band as lossless JPEG 2000 of several tiles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", blockxsize=look.block, blockysize=look.block,
        width=values.shape[1], height=values.shape[0], count=1, dtype=values.dtype, crs=f"EPSG:{look.epsg}",
        transform=Affine(resolution, 0, look.corner[0], 0, -resolution, look.corner[1]),
    ) as target:  # fmt: skip
        target.write(values, 1)
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)


def write_manifest(product: Path, checksum: str) -> None:
    """Write the manifest with size and checksum of every file that lies in the product."""
    digest = {"MD5": hashlib.md5, "SHA3-256": hashlib.sha3_256}[checksum]
    entries = []
    for number, file in enumerate(sorted(path for path in product.rglob("*") if path.is_file())):
        content = file.read_bytes()
        value = digest(content, usedforsecurity=False).hexdigest()
        entries.append(
            f'<dataObject ID="object_{number}">'
            f'<byteStream mimeType="application/octet-stream" size="{len(content)}">'
            f'<fileLocation locatorType="URL" href="./{file.relative_to(product).as_posix()}"/>'
            f'<checksum checksumName="{checksum}">{value.upper() if checksum == "SHA3-256" else value}</checksum>'
            "</byteStream></dataObject>"
        )
    (product / "manifest.safe").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:safe="http://www.esa.int/safe/sentinel/1.1" '
        'version="esa/safe/sentinel/1.1/sentinel-2/msi/archive_l2a_user_product">'
        f"<dataObjectSection>{''.join(entries)}</dataObjectSection></xfdu:XFDU>\n",
        encoding="utf-8",
    )


def product_xml(look: SafeLook) -> str:
    """Return the content of `MTD_MSIL2A.xml`, without what nobody reads (spectral responses, footprints, quality)."""
    two, older = ("_2A", "L2A_") if look.older_names else ("", "")
    files = "".join(
        f"<IMAGE_FILE{two}>{look.image(band, resolution).removesuffix('.jp2')}</IMAGE_FILE{two}>"
        for resolution, bands in look.bands.items()
        for band in bands
    )
    offsets = ""
    if look.offsets is not None:
        rows = "".join(f'<BOA_ADD_OFFSET band_id="{k}">{v}</BOA_ADD_OFFSET>' for k, v in look.offsets.items())
        offsets = f"<BOA_ADD_OFFSET_VALUES_LIST>{rows}</BOA_ADD_OFFSET_VALUES_LIST>"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{look.level}_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <{older}Product_Info>
      <PRODUCT_START_TIME>{look.start}</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>{look.start}</PRODUCT_STOP_TIME>
      <PRODUCT_URI{two}>{look.name}.SAFE</PRODUCT_URI{two}>
      <PROCESSING_LEVEL>Level-{look.level}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{look.level}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{look.baseline}</PROCESSING_BASELINE>
      <Datatake datatakeIdentifier="GS2B_20240719T204019_038494_N05.11">
        <SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>
        <DATATAKE_SENSING_START>{look.start}</DATATAKE_SENSING_START>
      </Datatake>
      <{older}Product_Organisation><Granule_List><Granule imageFormat="JPEG2000">
        {files}
      </Granule></Granule_List></{older}Product_Organisation>
    </{older}Product_Info>
    <{older}Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <QUANTIFICATION_VALUES_LIST>
        <{older}BOA_QUANTIFICATION_VALUE unit="none">{look.quantification}</{older}BOA_QUANTIFICATION_VALUE>
        <{older}AOT_QUANTIFICATION_VALUE unit="none">1000.0</{older}AOT_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>
      {offsets}
    </{older}Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{look.level}_User_Product>
"""


def tile_xml(look: SafeLook) -> str:
    """Return the content of `MTD_TL.xml`, without the grids of angles; sun and view have each a mean angle."""
    grids = "".join(
        f'<Size resolution="{r}"><NROWS>{-(-look.side * 10 // r)}</NROWS>'
        f"<NCOLS>{-(-look.side * 10 // r)}</NCOLS></Size>"
        f'<Geoposition resolution="{r}"><ULX>{look.corner[0]}</ULX><ULY>{look.corner[1]}</ULY>'
        f"<XDIM>{r}</XDIM><YDIM>{-r}</YDIM></Geoposition>"
        for r in (10, 20, 60)
    )
    sun = ""
    if look.sun is not None:
        sun = (
            f'<Mean_Sun_Angle><ZENITH_ANGLE unit="deg">{look.sun[0]}</ZENITH_ANGLE>'
            f'<AZIMUTH_ANGLE unit="deg">{look.sun[1]}</AZIMUTH_ANGLE></Mean_Sun_Angle>'
        )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID metadataLevel="Brief">S2B_OPER_MSI_L2A_TL_2BPS_20240719T233015_A038494_{look.tile}_N05.11</TILE_ID>
    <SENSING_TIME metadataLevel="Standard">2024-07-19T20:40:21.123456Z</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding metadataLevel="Brief">
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone 8N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>EPSG:{look.epsg}</HORIZONTAL_CS_CODE>
      {grids}
    </Tile_Geocoding>
    <Tile_Angles metadataLevel="Standard">
      {sun}
      <Mean_Viewing_Incidence_Angle_List><Mean_Viewing_Incidence_Angle bandId="0">
        <ZENITH_ANGLE unit="deg">5.25</ZENITH_ANGLE><AZIMUTH_ANGLE unit="deg">102.5</AZIMUTH_ANGLE>
      </Mean_Viewing_Incidence_Angle></Mean_Viewing_Incidence_Angle_List>
    </Tile_Angles>
  </n1:Geometric_Info>
</n1:Level-2A_Tile_ID>
"""
